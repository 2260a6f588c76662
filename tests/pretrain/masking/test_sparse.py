"""Sparse masking: a fixed number of tokens a sample, from a list, all equally likely."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from data_prep.counter_rng import key_of
from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from pretrain.masking.sparse import Sparse, read_allowed
from tests.sample_layouts import SPECIALS, assert_share, draw_samples, lay_out

KEY = key_of("mask", 0, 0)
ALL = np.arange(100) >= SPECIALS


@pytest.fixture
def tokenizer(tiny_tokenizer: Path) -> LoadedTokenizer:
    return load_tokenizer(tiny_tokenizer)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_sparse_exact_count_per_sample(count: int) -> None:
    """Each sample has exactly `count` masked tokens, or all allowed ones if there are fewer."""
    allowed = ALL & (np.arange(100) % 4 == 1)
    rows = lay_out(draw_samples(400, 100), padding=1)
    chosen = Sparse(count, allowed).choose(rows, KEY, 0.15)
    assert allowed[rows.input_ids[chosen]].all()
    edges = [*rows.sample_starts.tolist(), len(rows.input_ids)]
    for start, stop in itertools.pairwise(edges):
        candidates = int(allowed[rows.input_ids[start:stop]].sum())
        assert ((chosen >= start) & (chosen < stop)).sum() == min(count, candidates)


def test_sparse_candidates_equally_likely() -> None:
    """Every candidate of a sample has the same probability."""
    rows = lay_out([(number, [50, 7, 50, 7], [7, 50, 50, 50]) for number in range(9000)])
    chosen = Sparse(2, np.arange(100) == 50).choose(rows, KEY, 0.15)
    position = (
        chosen - rows.sample_starts[np.searchsorted(rows.sample_starts, chosen, side="right") - 1]
    )
    for candidate in (1, 3, 7, 8, 9):
        assert_share((position == candidate).sum(), len(rows.sample_starts), 2 / 5)


def test_sparse_ignores_rate() -> None:
    """The choice does not depend on the rate."""
    rows = lay_out(draw_samples(20, 100))
    first, second = (Sparse(3, ALL).choose(rows, KEY, rate) for rate in (0.01, 0.9))
    assert np.array_equal(first, second)


def test_read_allowed_reads_token_file(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    """Only the tokens of the file are allowed; without a file, all ordinary tokens."""
    path = tmp_path / "tokens.txt"
    path.write_text("bake\n\ntold \n", encoding="utf-8")
    maskable = np.arange(tokenizer.vocab_size) >= SPECIALS
    allowed = read_allowed(path, tokenizer, maskable)
    named = {tokenizer.backend.id_to_token(int(index)) for index in np.flatnonzero(allowed)}
    assert named == {"bake", "told"}
    assert np.array_equal(read_allowed(None, tokenizer, maskable), maskable)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bake\nzebra\n", r"Line 2 of .*tokens\.txt names 'zebra', which is not in the vocabulary"),
        ("[SEP]\n", r"Line 1 of .* names '\[SEP\]', which is a special token"),
        ("\n \n", r"tokens\.txt lists no token"),
        (None, r"tokens\.txt cannot be read"),
    ],
)
def test_read_allowed_rejects_bad_file(
    tmp_path: Path, tokenizer: LoadedTokenizer, text: str | None, message: str
) -> None:
    """An unusable token file is an error that names the line and the token."""
    path = tmp_path / "tokens.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_allowed(path, tokenizer, np.arange(tokenizer.vocab_size) >= SPECIALS)
