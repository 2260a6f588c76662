"""Sentence pairs, checked against lengths of documents that are known from outside.

In a numbered corpus a position is its token, so plain lists of where documents and sentences
begin say what each segment is.
"""

from bisect import bisect_right
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from data_prep.pairs import Chunks, SampleArray, make_samples
from tests.corpora import Shards, draw_shards, numbered_corpus

ROW = 128
BUDGET = ROW - 3


class Atlas:
    """Where documents and sentences begin, by adding up the lengths."""

    def __init__(self, shards: Shards) -> None:
        documents = list(chain.from_iterable(shards))
        self.documents = [0, *accumulate(sum(document) for document in documents)]
        self.sentences = {0, *accumulate(chain.from_iterable(documents))}

    def document_of(self, position: int) -> int:
        return bisect_right(self.documents, position) - 1

    def document_of_range(self, start: int, length: int) -> int:
        """Return the one document that holds a range."""
        first, last = self.document_of(start), self.document_of(start + length - 1)
        assert length > 0 and first == last, (start, length)
        return first


def samples_of(folder: Path, shards: Shards, row: int = ROW, epoch: int = 0) -> SampleArray:
    corpus = numbered_corpus(folder / f"corpus_{epoch}", shards)
    return make_samples(corpus.shards[0], corpus.shards[0], row, seed=1, epoch=epoch)


def totals(samples: SampleArray) -> npt.NDArray[np.int64]:
    return 3 + samples["a_length"].astype(np.int64) + samples["b_length"]


def advantage(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
    """Return how far apart two distributions are: the Kolmogorov-Smirnov distance."""
    grid = np.arange(max(first.max(), second.max()) + 1)
    below = [np.searchsorted(np.sort(x), grid, side="right") / len(x) for x in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


TEXT = draw_shards("pairs", (150,))
ATLAS = Atlas(TEXT)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> SampleArray:
    return samples_of(tmp_path_factory.mktemp("pairs"), TEXT)


def test_half_of_the_pairs_are_true(samples: SampleArray) -> None:
    assert len(samples) > 300
    assert abs(int(samples["is_next"].sum()) - len(samples) / 2) <= 1


def test_the_parts_of_a_true_pair_are_adjacent_and_meet_between_sentences(
    samples: SampleArray,
) -> None:
    for sample in samples[samples["is_next"] == 1]:
        a, b = int(sample["a_start"]), int(sample["b_start"])
        assert b == a + int(sample["a_length"])
        whole = int(sample["a_length"]) + int(sample["b_length"])
        ATLAS.document_of_range(a, whole)
        assert b in ATLAS.sentences


def test_the_parts_of_an_unrelated_pair_are_from_two_documents(samples: SampleArray) -> None:
    for sample in samples[samples["is_next"] == 0]:
        own = ATLAS.document_of_range(int(sample["a_start"]), int(sample["a_length"]))
        other = ATLAS.document_of_range(int(sample["b_start"]), int(sample["b_length"]))
        assert own != other
        assert int(sample["b_start"]) in ATLAS.sentences


def test_samples_fill_rows_and_never_overfill_them(samples: SampleArray) -> None:
    assert samples["a_length"].min() > 0 and samples["b_length"].min() > 0
    assert totals(samples).max() == ROW


@pytest.mark.parametrize(
    "shards",
    [
        pytest.param(TEXT, id="text"),
        pytest.param([[[10_000], [3], [1000, 1000, 1], [61, 61], [30, 31, 30, 31]]], id="long"),
        pytest.param([[[1], [1, 1], [2], [60], [61], [62], [63, 1]]], id="edges"),
    ],
)
def test_no_token_of_a_document_is_skipped(tmp_path: Path, shards: Shards) -> None:
    corpus = numbered_corpus(tmp_path / "corpus", shards)
    chunks = Chunks(corpus.shards[0], BUDGET)
    covered = np.zeros(corpus.num_tokens, bool)
    atlas = Atlas(shards)
    for start, stop in zip(chunks.start.tolist(), chunks.stop.tolist(), strict=True):
        assert stop - start <= BUDGET
        atlas.document_of_range(start, stop - start)
        covered[start:stop] = True
    assert covered.all()


def test_every_chunk_opens_a_sample_in_document_order(tmp_path: Path) -> None:
    corpus = numbered_corpus(tmp_path / "corpus", TEXT)
    shard = corpus.shards[0]
    made = make_samples(shard, shard, ROW, seed=1, epoch=0)
    assert made["a_start"].tolist() == Chunks(shard, BUDGET).start.tolist()
    assert all(np.diff(made["a_start"]) > 0)


@pytest.mark.parametrize(("median_tokens", "row"), [(40, 128), (150, 128), (1000, 128), (150, 512)])
def test_length_and_last_word_do_not_give_the_label_away(
    tmp_path: Path, median_tokens: int, row: int
) -> None:
    shards = draw_shards("lengths", (250_000 // median_tokens,), median_tokens)
    made = samples_of(tmp_path, shards, row=row)
    true, unrelated = made[made["is_next"] == 1], made[made["is_next"] == 0]
    # Whoever knows the length alone may guess right 55 times in 100, where 50 is chance.
    assert advantage(totals(true), totals(unrelated)) < 0.1

    ends = [part["b_start"].astype(np.int64) + part["b_length"] for part in (true, unrelated)]
    sentences = list(Atlas(shards).sentences)
    shares = [float(np.isin(part, sentences).mean()) for part in ends]
    assert shares[0] > 0.05 and abs(shares[0] - shares[1]) < 0.1


def test_documents_of_one_sentence_make_unrelated_pairs(tmp_path: Path) -> None:
    shards = [[[5 + index % 20] for index in range(40)]]
    made = samples_of(tmp_path, shards)
    atlas = Atlas(shards)
    assert len(made) == 40 and not made["is_next"].any()
    for sample in made:
        own = atlas.document_of_range(int(sample["a_start"]), int(sample["a_length"]))
        assert own != atlas.document_of_range(int(sample["b_start"]), int(sample["b_length"]))


def test_a_sentence_longer_than_a_row_makes_true_pairs_too(tmp_path: Path) -> None:
    made = samples_of(tmp_path, [[[10_000], [10_000]]])
    assert len(made) >= 20_000 // BUDGET and totals(made).max() <= ROW
    assert abs(int(made["is_next"].sum()) - len(made) / 2) <= 1


def test_a_lone_document_takes_its_partners_from_the_next_shard(tmp_path: Path) -> None:
    corpus = numbered_corpus(tmp_path / "corpus", [[[20] * 60], [[9] * 30, [8] * 30]])
    lone, partner = corpus.shards
    made = make_samples(lone, partner, ROW, seed=0, epoch=0)
    unrelated = made[made["is_next"] == 0]
    assert len(unrelated) == len(made) // 2
    assert made["a_start"].max() < 1200
    assert unrelated["b_start"].min() >= 1200
    assert (unrelated["b_start"].astype(np.int64) + unrelated["b_length"]).max() <= 1200 + 510


def test_partners_come_from_every_other_document(tmp_path: Path) -> None:
    shards = [[[10] * 50 for _ in range(5)]]
    atlas = Atlas(shards)
    met = set()
    for epoch in range(20):
        made = samples_of(tmp_path, shards, epoch=epoch)
        for sample in made[made["is_next"] == 0]:
            pair = (int(sample["a_start"]), int(sample["b_start"]))
            met.add(tuple(atlas.document_of(start) for start in pair))
    assert met == {(own, other) for own in range(5) for other in range(5) if own != other}


def test_samples_are_the_same_again_and_others_in_another_epoch(
    tmp_path: Path, samples: SampleArray
) -> None:
    corpus = numbered_corpus(tmp_path / "corpus", TEXT)
    shard = corpus.shards[0]
    assert make_samples(shard, shard, ROW, seed=1, epoch=0).tobytes() == samples.tobytes()
    for seed, epoch in ((1, 1), (2, 0)):
        others = make_samples(shard, shard, ROW, seed=seed, epoch=epoch)
        assert 0.3 < np.mean(others["is_next"] != samples["is_next"]) < 0.7
        assert np.mean(others["a_length"] == samples["a_length"]) < 0.7
