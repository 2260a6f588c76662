"""Token counts: every token once, weighted by shard, cached under the corpus fingerprint."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus
from pretrain.masking import token_counts
from pretrain.masking.token_counts import count_tokens
from tests.synthetic_corpora import write_corpus

DOCUMENTS = [[[[5, 6, 6]], [[7]]], [[[6, 9, 9, 9]]]]


def make_corpus(path: Path) -> Corpus:
    write_corpus(path, {"train": DOCUMENTS, "validation": [[[[8]]]]}, vocab_size=12)
    return Corpus.open(path)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_counts_every_token_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Every token of the split is counted once, for any block size."""
    monkeypatch.setattr(token_counts, "_BLOCK_TOKENS", block)
    counts = count_tokens(make_corpus(tmp_path / "corpus"), tmp_path / "cache")
    assert counts.tolist() == [0, 0, 0, 0, 0, 1, 3, 1, 0, 3, 0, 0]


def test_counts_weighted_by_shard(tmp_path: Path) -> None:
    """A shard's tokens are multiplied by its weight."""
    corpus = make_corpus(tmp_path / "corpus")
    plain = count_tokens(corpus, tmp_path)
    corpus.shards[1].weight = 2.5
    weighted = count_tokens(corpus, tmp_path)
    assert (weighted[6], weighted[9]) == (2 + 2.5, 7.5)
    assert plain[9] == 3, "another weight has another file"


def test_counts_cached_by_split(tmp_path: Path) -> None:
    """Counts are read from the cache, a file for each split."""
    corpus, cache = make_corpus(tmp_path / "corpus"), tmp_path / "cache"
    first = count_tokens(corpus, cache)
    (file,) = cache.iterdir()
    np.save(file, first + 1)
    assert np.array_equal(count_tokens(corpus, cache), first + 1)
    held_out = count_tokens(Corpus.open(corpus.path, "validation"), cache)
    assert held_out[8] == 1 == held_out.sum()
