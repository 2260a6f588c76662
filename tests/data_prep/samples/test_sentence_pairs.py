"""Sentence pairs, checked against documents of known lengths."""

import numpy as np
import pytest

from data_prep.samples.sentence_pairs import SampleArray, make_samples, sample_tokens
from tests.synthetic_corpora import Shards, draw_shards
from tests.synthetic_shards import (
    PositionIndex,
    deviations_from_half,
    ks_distance,
    segment_range,
    synthetic_shard,
    total_lengths,
)

ROW = 128
BUDGET = ROW - 3


def samples_of(shards: Shards, row: int = ROW, epoch: int = 0) -> SampleArray:
    shard = synthetic_shard([list(document) for document in shards[0]])
    return make_samples(shard, shard, row, seed=1, epoch=epoch)


TEXT = draw_shards("pairs", (400,))
INDEX = PositionIndex(TEXT)


@pytest.fixture(scope="module")
def samples() -> SampleArray:
    return samples_of(TEXT)


def test_half_of_pairs_are_true(samples: SampleArray) -> None:
    """Half of the pairs are true."""
    assert len(samples) > 1000
    assert deviations_from_half(samples["is_next"] == 1) < 4


def test_true_pairs_are_adjacent(
    samples: SampleArray,
) -> None:
    """The segments of a true pair are adjacent and meet between sentences."""
    for sample in samples[samples["is_next"] == 1]:
        a, b = segment_range(sample, "a"), segment_range(sample, "b")
        assert b.start == a.stop and b.start in INDEX.sentences
        INDEX.document_of_range(a.start, len(a) + len(b))


def test_negatives_come_from_other_documents(samples: SampleArray) -> None:
    """The segments of a negative pair are from two documents."""
    for sample in samples[samples["is_next"] == 0]:
        a, b = segment_range(sample, "a"), segment_range(sample, "b")
        own, other = (INDEX.document_of_range(part.start, len(part)) for part in (a, b))
        assert own != other
        assert b.start in INDEX.sentences and a.stop in INDEX.sentences


def test_pairs_fit_row_length(samples: SampleArray) -> None:
    """Samples reach the row length and never exceed it."""
    assert samples["a_length"].min() > 0 and samples["b_length"].min() > 0
    assert total_lengths(samples).max() == ROW
    assert sample_tokens(samples).tolist() == total_lengths(samples).tolist()


@pytest.mark.parametrize(("median_tokens", "row"), [(40, 128), (150, 128), (1000, 128), (150, 512)])
def test_lengths_do_not_predict_label(median_tokens: int, row: int) -> None:
    """Neither lengths nor the last token predict the label."""
    shards = draw_shards("lengths", (250_000 // median_tokens,), median_tokens)
    made = samples_of(shards, row=row)
    true, negative = made[made["is_next"] == 1], made[made["is_next"] == 0]
    assert deviations_from_half(made["is_next"] == 1) < 4
    # A guess from the length alone is right at most 55 times in 100, where 50 is chance.
    assert ks_distance(total_lengths(true), total_lengths(negative)) < 0.1
    # The length of A alone carries no information: these distances are those of chance.
    chance = 1.95 * (1 / len(true) + 1 / len(negative)) ** 0.5
    assert ks_distance(true["a_length"], negative["a_length"]) < chance

    ends = [part["b_start"].astype(np.int64) + part["b_length"] for part in (true, negative)]
    sentences = list(PositionIndex(shards).sentences)
    shares = [float(np.isin(part, sentences).mean()) for part in ends]
    assert shares[0] > 0.05 and abs(shares[0] - shares[1]) < 0.1


def test_single_sentences_make_negatives() -> None:
    """Documents of one sentence give negative pairs."""
    shards = [[[5 + index % 20] for index in range(40)]]
    made = samples_of(shards)
    index = PositionIndex(shards)
    assert len(made) == 40 and not made["is_next"].any()
    for sample in made:
        own = index.document_of_range(int(sample["a_start"]), int(sample["a_length"]))
        assert own != index.document_of_range(int(sample["b_start"]), int(sample["b_length"]))


def test_long_sentences_make_true_pairs() -> None:
    """A sentence longer than a row gives true pairs too."""
    made = samples_of([[[100_000], [100_000]]])
    assert len(made) >= 200_000 // BUDGET and total_lengths(made).max() <= ROW
    assert deviations_from_half(made["is_next"] == 1) < 4


def test_lone_document_uses_next_shard() -> None:
    """The negatives of a lone document come from the next shard."""
    lone = synthetic_shard([[20] * 600])
    others = synthetic_shard([[9] * 30, [8] * 30], token_base=12_000)
    made = make_samples(lone, others, ROW, seed=0, epoch=0)
    negative = made[made["is_next"] == 0]
    assert deviations_from_half(made["is_next"] == 1) < 4 and len(negative) > 20
    assert made["a_start"].max() < 12_000
    assert negative["b_start"].min() >= 12_000
    assert (negative["b_start"].astype(np.int64) + negative["b_length"]).max() <= 12_510


def test_negatives_cover_all_documents() -> None:
    """Negatives come from every other document."""
    shards = [[[10] * 50 for _ in range(5)]]
    index = PositionIndex(shards)
    met = set()
    for epoch in range(20):
        made = samples_of(shards, epoch=epoch)
        for sample in made[made["is_next"] == 0]:
            pair = (int(sample["a_start"]), int(sample["b_start"]))
            met.add(tuple(index.document_of(start) for start in pair))
    assert met == {(own, other) for own in range(5) for other in range(5) if own != other}


@pytest.mark.parametrize("pairs", ["next_sentence", "sentence_order", "none"])
def test_pairs_depend_on_key_only(pairs: str) -> None:
    """Samples are reproducible, and differ in another epoch or repetition."""
    shard = synthetic_shard([list(document) for document in TEXT[0]])

    def made(seed: int = 1, epoch: int = 0, repetition: int = 0) -> set[tuple[int, ...]]:
        rows = make_samples(
            shard, shard, ROW, seed, epoch, pairs=pairs, short_share=0.2, repetition=repetition
        )
        return {tuple(row) for row in rows.tolist()}

    first = made()
    assert made() == first
    for other in (made(epoch=1), made(seed=2), made(repetition=1)):
        assert len(first & other) < 0.7 * len(first)


@pytest.mark.parametrize("pairs", ["next_sentence", "sentence_order", "none"])
def test_document_mask_selects_samples(pairs: str) -> None:
    """Only the documents of the mask give samples."""
    shard, count = synthetic_shard([list(document) for document in TEXT[0]]), len(TEXT[0])
    whole = make_samples(shard, shard, ROW, 1, 0, pairs=pairs)
    parts = []
    for chosen in (np.arange(count) % 3 == 0, np.arange(count) % 3 != 0):
        part = make_samples(shard, shard, ROW, 1, 0, pairs=pairs, documents=chosen)
        own = {INDEX.document_of(int(start)) for start in part["a_start"]}
        assert own == set(np.flatnonzero(chosen).tolist())
        parts.append(part)
    found = sorted(np.concatenate(parts)[["a_start", "a_length", "is_next"]].tolist())
    assert found == sorted(whole[["a_start", "a_length", "is_next"]].tolist())
    none = make_samples(shard, shard, ROW, 1, 0, pairs=pairs, documents=np.zeros(count, bool))
    assert len(none) == 0
