"""Row layout: pairs and single segments by hand, and each sample reversed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus
from data_prep.counter_rng import key_of
from data_prep.samples.sentence_pairs import SAMPLE
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.config.run import MaskOptions
from pretrain.data.batch import IGNORE_INDEX
from pretrain.data.collate import sequence_starts
from pretrain.data.row_layout import RowMaker
from pretrain.masking.factory import open_masking
from pretrain.masking.packed_rows import PackedRows, concatenate
from tests.synthetic_corpora import NUMBERED_FROM, numbered_corpus

T = 16
PAD, CLS, SEP = 0, 2, 3
KEY = key_of("mask", 0, 0)
# Row 0: a pair and a single segment, 2 tokens of padding; row 1: a pair that fills it; row 2: one
# token.
RECORDS = [(0, 0, 3, 10, 4, 1), (0, 20, 2, 0, 0, 1), (1, 30, 6, 50, 7, 0), (2, 40, 1, 0, 0, 1)]
ROWS = np.array([row for row, *_ in RECORDS])
SAMPLES = np.array([(a, b, n, m, is_next) for _, a, n, b, m, is_next in RECORDS], SAMPLE)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return numbered_corpus(tmp_path / "corpus", [[[30, 30]], [[40]]])


def open_maker(corpus: Corpus, tokenizer: Path, **mask: Any) -> RowMaker:
    options = MaskOptions(**mask)
    loaded = load_tokenizer(tokenizer)
    masking = open_masking(options, loaded, corpus, corpus.path)
    return RowMaker(corpus, loaded, masking, T, options.bidirectional)


def make(maker: RowMaker, rate: float = 0.3) -> list[PackedRows]:
    return maker.make(SAMPLES, np.arange(len(SAMPLES)), ROWS, KEY, rate)


def unmasked(rows: PackedRows) -> list[list[int]]:
    ids = rows.input_ids.copy()
    ids[rows.masked_positions] = rows.mlm_labels
    return ids.reshape(-1, T).tolist()


def numbered(start: int, count: int) -> list[int]:
    return list(range(NUMBERED_FROM + start, NUMBERED_FROM + start + count))


def backwards(start: int, count: int) -> list[int]:
    return numbered(start, count)[::-1]


def test_pairs_and_single_segments_layout(corpus: Corpus, tiny_tokenizer: Path) -> None:
    """Pairs and single segments have the expected ids, token types, positions and sample ids."""
    (rows,) = make(open_maker(corpus, tiny_tokenizer))
    assert unmasked(rows) == [
        [CLS, *numbered(0, 3), SEP, *numbered(10, 4), SEP, CLS, *numbered(20, 2), SEP, PAD, PAD],
        [CLS, *numbered(30, 6), SEP, *numbered(50, 7), SEP],
        [CLS, *numbered(40, 1), SEP] + [PAD] * 13,
    ]
    assert rows.token_types.reshape(-1, T).tolist() == [
        [0] * 5 + [1] * 5 + [0] * 6,
        [0] * 8 + [1] * 8,
        [0] * T,
    ]
    assert rows.positions.reshape(-1, T).tolist() == [
        [*range(10), *range(4), 0, 0],
        list(range(16)),
        [0, 1, 2] + [0] * 13,
    ]
    assert rows.sample_ids.reshape(-1, T).tolist() == [
        [1] * 10 + [2] * 4 + [0] * 2,
        [1] * 16,
        [1] * 3 + [0] * 13,
    ]


def test_sequence_starts_at_samples_and_padding(corpus: Corpus, tiny_tokenizer: Path) -> None:
    """Sequences start at every sample and at the padding of every row."""
    maker = open_maker(corpus, tiny_tokenizer)
    rows = concatenate([*make(maker), *maker.blank(2)])
    # Two samples and padding; one sample that fills its row; one and padding; blank rows.
    assert sequence_starts(rows, T).tolist() == [0, 10, 14, T, 2 * T, 2 * T + 3, 3 * T, 4 * T]


def test_only_pairs_have_nsp_labels(corpus: Corpus, tiny_tokenizer: Path) -> None:
    """Only samples of two segments have an NSP label."""
    (rows,) = make(open_maker(corpus, tiny_tokenizer))
    assert rows.sample_starts.tolist() == [0, 10, T, 2 * T]
    assert rows.nsp_labels.tolist() == [0, IGNORE_INDEX, 1, IGNORE_INDEX]


def test_reversed_sample_mirrors_tokens_and_masks(corpus: Corpus, tiny_tokenizer: Path) -> None:
    """A reversed sample mirrors tokens, masked positions and replacements."""
    forward, backward = make(open_maker(corpus, tiny_tokenizer, bidirectional=True))
    assert unmasked(backward) == [
        [CLS, *backwards(10, 4), SEP, *backwards(0, 3), SEP, CLS, *backwards(20, 2), SEP, PAD, PAD],
        [CLS, *backwards(50, 7), SEP, *backwards(30, 6), SEP],
        [CLS, *numbered(40, 1), SEP] + [PAD] * 13,
    ]
    assert backward.token_types.reshape(-1, T).tolist() == [
        [0] * 6 + [1] * 4 + [0] * 6,
        [0] * 9 + [1] * 7,
        [0] * T,
    ]
    assert np.array_equal(backward.positions, forward.positions)
    assert np.array_equal(backward.sample_ids, forward.sample_ids)
    assert len(forward.masked_positions) > 2
    assert np.array_equal(backward.mlm_labels, forward.mlm_labels)
    assert np.array_equal(
        backward.input_ids[backward.masked_positions], forward.input_ids[forward.masked_positions]
    ), "a token has the same replacement in both directions"


def test_forward_rows_independent_of_bidirectional(corpus: Corpus, tiny_tokenizer: Path) -> None:
    """The forward rows are the same with and without `bidirectional`."""
    (alone,) = make(open_maker(corpus, tiny_tokenizer))
    forward, _ = make(open_maker(corpus, tiny_tokenizer, bidirectional=True))
    for name, table in vars(alone).items():
        assert np.array_equal(table, getattr(forward, name)), name


def test_concatenate_shifts_indices(corpus: Corpus, tiny_tokenizer: Path) -> None:
    """Concatenated rows are those of all parts, with indices shifted."""
    maker = open_maker(corpus, tiny_tokenizer, bidirectional=True)
    for blank, part in zip(maker.blank(1), make(maker), strict=True):
        joined = concatenate([part, blank, part])
        size = len(part.input_ids)
        assert joined.masked_positions.tolist() == [
            *part.masked_positions,
            *(part.masked_positions + size + T),
        ]
        assert joined.sample_starts.tolist() == [
            *part.sample_starts,
            *(part.sample_starts + size + T),
        ]
        assert unmasked(joined) == [*unmasked(part), [PAD] * T, *unmasked(part)]


@pytest.mark.parametrize("policy", ["uniform", "adaptive", "sparse"])
def test_policies_mask_only_ordinary_tokens(
    corpus: Corpus, tiny_tokenizer: Path, policy: str
) -> None:
    """Every policy masks ordinary tokens only, `sparse` the given number of each sample."""
    (rows,) = make(open_maker(corpus, tiny_tokenizer, policy=policy, sparse_count=3), rate=0.5)
    assert len(rows.masked_positions) and (rows.mlm_labels >= NUMBERED_FROM).all()
    if policy == "sparse":
        owners = rows.masked_positions // T * 10 + rows.sample_ids[rows.masked_positions]
        assert np.unique(owners, return_counts=True)[1].tolist() == [3, 2, 3, 1]
