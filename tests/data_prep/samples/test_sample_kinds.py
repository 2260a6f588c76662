"""Sentence-order pairs and samples of a single segment."""

import numpy as np
import pytest

from data_prep.samples.sentence_pairs import Pairs, SampleArray, make_samples, sample_tokens
from tests.synthetic_corpora import draw_shards
from tests.synthetic_shards import (
    PositionIndex,
    deviations_from_half,
    ks_distance,
    segment_range,
    synthetic_shard,
    total_lengths,
)

ROW = 128
DOCUMENTS = [list(document) for document in draw_shards("kinds", (400,))[0]]
INDEX = PositionIndex([DOCUMENTS])


def made(pairs: Pairs, documents: list[list[int]] = DOCUMENTS, row: int = ROW) -> SampleArray:
    shard = synthetic_shard(documents, token_base=5000)
    samples = make_samples(shard, shard, row, 1, 0, pairs=pairs)
    for field in ("a_start", "b_start"):
        samples[field] -= 5000
    return samples


@pytest.fixture(scope="module")
def orders() -> SampleArray:
    return made("sentence_order")


def test_half_of_orders_are_swapped(orders: SampleArray) -> None:
    """Half of the sentence-order pairs are swapped."""
    assert len(orders) > 700 and deviations_from_half(orders["is_next"] == 1) < 4


def test_order_label_matches_text(orders: SampleArray) -> None:
    """The label is whether A comes before B in the text."""
    for sample in orders:
        a, b = segment_range(sample, "a"), segment_range(sample, "b")
        first, second = (a, b) if sample["is_next"] else (b, a)
        assert first.stop == second.start
        INDEX.document_of_range(first.start, len(first) + len(second))


def test_order_splits_between_sentences(
    orders: SampleArray,
) -> None:
    """A segment of several sentences is split between two of them."""
    for sample in orders:
        first = segment_range(sample, "a" if sample["is_next"] else "b")
        second = segment_range(sample, "b" if sample["is_next"] else "a")
        within = range(first.start + 1, second.stop)
        assert second.start in INDEX.sentences or not INDEX.sentences & set(within)


def test_lengths_do_not_predict_order(orders: SampleArray) -> None:
    """Lengths do not predict the order."""
    in_order, swapped = orders[orders["is_next"] == 1], orders[orders["is_next"] == 0]
    chance = 1.95 * (1 / len(in_order) + 1 / len(swapped)) ** 0.5
    assert ks_distance(total_lengths(in_order), total_lengths(swapped)) < chance
    # A segment cut in the middle of a sentence ends in a part of one, so B may be shorter.
    assert ks_distance(in_order["a_length"], swapped["a_length"]) < 0.1 + chance


def test_single_sentence_splits_anywhere() -> None:
    """A single sentence is split at any of its tokens."""
    samples = made("sentence_order", [[20]] * 2000)
    first_lengths = np.where(samples["is_next"] == 1, samples["a_length"], samples["b_length"])
    assert len(samples) == 2000 and (samples["a_length"] + samples["b_length"] == 20).all()
    counts = np.bincount(first_lengths, minlength=20)
    assert counts[0] == 0 and counts[1:20].min() > 50


def test_last_single_token_joins_predecessor() -> None:
    """A last token on its own is paired with the one before it, if there is one."""
    # 125 tokens fill a row; one is left over in the first document, and is all of the second.
    samples = made("sentence_order", [[60, 65, 1], [1]])
    ranges = [
        sorted(
            [
                (part.start, part.stop)
                for part in (segment_range(s, "a"), segment_range(s, "b"))
                if part
            ]
        )
        for s in samples
    ]
    assert ranges == [[(0, 60), (60, 125)], [(124, 125), (125, 126)], [(126, 127)]]
    assert samples["b_length"][2] == 0 and sample_tokens(samples)[2] == 3


def test_single_segments_have_one_document() -> None:
    """Single segments fill a row with text of one document."""
    samples = made("none")
    assert (samples["b_length"] == 0).all()
    assert total_lengths(samples).max() == ROW and sample_tokens(samples).max() == ROW
    assert sample_tokens(samples).tolist() == (samples["a_length"].astype(int) + 2).tolist()
    for sample in samples:
        INDEX.document_of_range(int(sample["a_start"]), int(sample["a_length"]))


def test_long_sentence_fills_single_segments() -> None:
    """A long text without sentence ends gives full single segments."""
    samples = made("none", [[126 * 50 + 7]])
    assert samples["a_length"].tolist() == [126] * 50 + [7]


def test_one_token_document_makes_sample() -> None:
    """A single document of one token gives a sample of its own text."""
    for pairs in ("none", "sentence_order"):
        samples = made(pairs, [[1]])
        assert samples["a_length"].tolist() == [1] and samples["b_length"].tolist() == [0]
