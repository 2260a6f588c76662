"""Sentence pairs, checked against lengths of documents that are known from outside."""

import numpy as np
import pytest

from data_prep.samples.sentence_pairs import SampleArray, make_samples, sample_tokens
from tests.synthetic_corpora import Shards, draw_shards
from tests.synthetic_shards import Atlas, advantage, made_shard, off_half, segment, totals

ROW = 128
BUDGET = ROW - 3


def samples_of(shards: Shards, row: int = ROW, epoch: int = 0) -> SampleArray:
    shard = made_shard([list(document) for document in shards[0]])
    return make_samples(shard, shard, row, seed=1, epoch=epoch)


TEXT = draw_shards("pairs", (400,))
ATLAS = Atlas(TEXT)


@pytest.fixture(scope="module")
def samples() -> SampleArray:
    return samples_of(TEXT)


def test_half_of_the_pairs_are_true(samples: SampleArray) -> None:
    assert len(samples) > 1000
    assert off_half(samples["is_next"] == 1) < 4


def test_the_parts_of_a_true_pair_are_adjacent_and_meet_between_sentences(
    samples: SampleArray,
) -> None:
    for sample in samples[samples["is_next"] == 1]:
        a, b = segment(sample, "a"), segment(sample, "b")
        assert b.start == a.stop and b.start in ATLAS.sentences
        ATLAS.document_of_range(a.start, len(a) + len(b))


def test_the_parts_of_an_unrelated_pair_are_from_two_documents(samples: SampleArray) -> None:
    for sample in samples[samples["is_next"] == 0]:
        a, b = segment(sample, "a"), segment(sample, "b")
        own, other = (ATLAS.document_of_range(part.start, len(part)) for part in (a, b))
        assert own != other
        assert b.start in ATLAS.sentences and a.stop in ATLAS.sentences


def test_samples_fill_rows_and_never_overfill_them(samples: SampleArray) -> None:
    assert samples["a_length"].min() > 0 and samples["b_length"].min() > 0
    assert totals(samples).max() == ROW
    assert sample_tokens(samples).tolist() == totals(samples).tolist()


@pytest.mark.parametrize(("median_tokens", "row"), [(40, 128), (150, 128), (1000, 128), (150, 512)])
def test_lengths_and_last_word_do_not_give_the_label_away(median_tokens: int, row: int) -> None:
    shards = draw_shards("lengths", (250_000 // median_tokens,), median_tokens)
    made = samples_of(shards, row=row)
    true, unrelated = made[made["is_next"] == 1], made[made["is_next"] == 0]
    assert off_half(made["is_next"] == 1) < 4
    # Whoever knows a length alone may guess right 55 times in 100, where 50 is chance.
    assert advantage(totals(true), totals(unrelated)) < 0.1
    # Of A alone it should say nothing: these distances are those of chance.
    chance = 1.95 * (1 / len(true) + 1 / len(unrelated)) ** 0.5
    assert advantage(true["a_length"], unrelated["a_length"]) < chance

    ends = [part["b_start"].astype(np.int64) + part["b_length"] for part in (true, unrelated)]
    sentences = list(Atlas(shards).sentences)
    shares = [float(np.isin(part, sentences).mean()) for part in ends]
    assert shares[0] > 0.05 and abs(shares[0] - shares[1]) < 0.1


def test_documents_of_one_sentence_make_unrelated_pairs() -> None:
    shards = [[[5 + index % 20] for index in range(40)]]
    made = samples_of(shards)
    atlas = Atlas(shards)
    assert len(made) == 40 and not made["is_next"].any()
    for sample in made:
        own = atlas.document_of_range(int(sample["a_start"]), int(sample["a_length"]))
        assert own != atlas.document_of_range(int(sample["b_start"]), int(sample["b_length"]))


def test_a_sentence_longer_than_a_row_makes_true_pairs_too() -> None:
    made = samples_of([[[100_000], [100_000]]])
    assert len(made) >= 200_000 // BUDGET and totals(made).max() <= ROW
    assert off_half(made["is_next"] == 1) < 4


def test_a_lone_document_takes_its_partners_from_the_next_shard() -> None:
    lone = made_shard([[20] * 600])
    partner = made_shard([[9] * 30, [8] * 30], token_base=12_000)
    made = make_samples(lone, partner, ROW, seed=0, epoch=0)
    unrelated = made[made["is_next"] == 0]
    assert off_half(made["is_next"] == 1) < 4 and len(unrelated) > 20
    assert made["a_start"].max() < 12_000
    assert unrelated["b_start"].min() >= 12_000
    assert (unrelated["b_start"].astype(np.int64) + unrelated["b_length"]).max() <= 12_510


def test_partners_come_from_every_other_document() -> None:
    shards = [[[10] * 50 for _ in range(5)]]
    atlas = Atlas(shards)
    met = set()
    for epoch in range(20):
        made = samples_of(shards, epoch=epoch)
        for sample in made[made["is_next"] == 0]:
            pair = (int(sample["a_start"]), int(sample["b_start"]))
            met.add(tuple(atlas.document_of(start) for start in pair))
    assert met == {(own, other) for own in range(5) for other in range(5) if own != other}


@pytest.mark.parametrize("pairs", ["next_sentence", "sentence_order", "none"])
def test_samples_are_the_same_again_and_others_in_another_epoch_or_visit(pairs: str) -> None:
    shard = made_shard([list(document) for document in TEXT[0]])

    def made(seed: int = 1, epoch: int = 0, visit: int = 0) -> set[tuple[int, ...]]:
        rows = make_samples(
            shard, shard, ROW, seed, epoch, pairs=pairs, short_share=0.2, visit=visit
        )
        return {tuple(row) for row in rows.tolist()}

    first = made()
    assert made() == first
    for other in (made(epoch=1), made(seed=2), made(visit=1)):
        assert len(first & other) < 0.7 * len(first)


@pytest.mark.parametrize("pairs", ["next_sentence", "sentence_order", "none"])
def test_only_the_chosen_documents_are_cut(pairs: str) -> None:
    shard, count = made_shard([list(document) for document in TEXT[0]]), len(TEXT[0])
    whole = make_samples(shard, shard, ROW, 1, 0, pairs=pairs)
    parts = []
    for chosen in (np.arange(count) % 3 == 0, np.arange(count) % 3 != 0):
        part = make_samples(shard, shard, ROW, 1, 0, pairs=pairs, documents=chosen)
        own = {ATLAS.document_of(int(start)) for start in part["a_start"]}
        assert own == set(np.flatnonzero(chosen).tolist())
        parts.append(part)
    found = sorted(np.concatenate(parts)[["a_start", "a_length", "is_next"]].tolist())
    assert found == sorted(whole[["a_start", "a_length", "is_next"]].tolist())
    none = make_samples(shard, shard, ROW, 1, 0, pairs=pairs, documents=np.zeros(count, bool))
    assert len(none) == 0
