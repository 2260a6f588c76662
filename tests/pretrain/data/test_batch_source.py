"""Batches: a pure function of corpus, seed and step, laid out as BERT expects.

Token ids of the corpus are consecutive numbers, so that the range of every segment can be read back
from a batch without the epoch index.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.corpus.shards import Corpus
from data_prep.samples.sentence_pairs import make_samples
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from pretrain.config.run import MaskOptions
from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from tests.synthetic_corpora import NUMBERED_FROM, draw_shards, numbered_corpus

T, BATCH = 64, 8
PAD, CLS, SEP, MASK = 0, 2, 3, 4
FOLLOWS = 0  # the `next_sentence_label` of a true pair in transformers
Row = tuple[object, ...]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("batches") / "corpus"
    return numbered_corpus(path, draw_shards("batches", (9, 8), median_tokens=150))


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path) -> LoadedTokenizer:
    return load_tokenizer(tiny_tokenizer)


@pytest.fixture
def source(corpus: Corpus, tokenizer: LoadedTokenizer, tmp_path: Path) -> BatchSource:
    return BatchSource(corpus, tokenizer, MaskOptions(), seed=4, row_tokens=T, cache=tmp_path)


@dataclass(frozen=True)
class Sample:
    """One sample read back from a batch; segments are ranges of corpus positions."""

    a: range
    b: range
    is_next: bool


def rows_of(batch: Batch) -> list[Row]:
    """Return what each row holds, as values that can be compared and sorted."""
    rows = []
    tables = [
        table.view(-1, T)
        for table in (batch.input_ids, batch.token_types, batch.positions, batch.sample_ids)
    ]
    masked, labels = batch.mlm_targets
    cls_positions, nsp_labels = batch.nsp_targets
    for row in range(len(tables[0])):
        in_row, cls_in_row = masked // T == row, cls_positions // T == row
        sparse = (
            masked[in_row] % T,
            labels[in_row],
            cls_positions[cls_in_row] % T,
            nsp_labels[cls_in_row],
        )
        rows.append(tuple(tuple(t.tolist()) for t in (*(table[row] for table in tables), *sparse)))
    return rows


def global_rows(source: BatchSource, step: int, world: int = 1, micro: int = BATCH) -> list[Row]:
    """Return the rows of a step over all ranks, in one canonical order."""
    return sorted(
        (
            row
            for rank in range(world)
            for batch in source.step(step, BATCH, rank, world, micro)
            for row in rows_of(batch)
        ),
        key=repr,
    )


def restored(batch: Batch) -> torch.Tensor:
    """Return the ids before masking, [N]."""
    return batch.input_ids.scatter(0, *batch.mlm_targets)


def read_samples(batch: Batch) -> list[Sample]:
    """Read the samples of a batch by [CLS] and [SEP], checking the layout on the way."""
    samples = []
    ids = restored(batch).tolist()
    types, positions = batch.token_types.tolist(), batch.positions.tolist()
    owners = batch.sample_ids.tolist()
    cls_positions, labels = batch.nsp_targets
    for first, label in zip(cls_positions.tolist(), labels.tolist(), strict=True):
        assert ids[first] == CLS
        middle = ids.index(SEP, first)
        last = ids.index(SEP, middle + 1)
        length = last + 1 - first
        assert first // T == last // T, "a sample stays within its row"
        assert positions[first : last + 1] == list(range(length))
        assert types[first : last + 1] == [0] * (middle + 1 - first) + [1] * (last - middle)
        assert len(set(owners[first : last + 1])) == 1 and owners[first] > 0
        segments = (ids[first + 1 : middle], ids[middle + 1 : last])
        a, b = (range(part[0] - NUMBERED_FROM, part[-1] + 1 - NUMBERED_FROM) for part in segments)
        assert [list(part) for part in (a, b)] == [
            [token - NUMBERED_FROM for token in segment] for segment in segments
        ], "a segment is an unbroken stretch of the corpus"
        samples.append(Sample(a, b, label == FOLLOWS))
    return samples


def epoch_rows(source: BatchSource, epoch: int) -> range:
    first = sum(source.epoch_index(before).num_rows for before in range(epoch))
    return range(first, first + source.epoch_index(epoch).num_rows)


@pytest.mark.parametrize(("world", "micro"), [(1, 1), (1, 4), (2, 1), (2, 4), (4, 1), (4, 2)])
def test_global_batch_independent_of_ranks(source: BatchSource, world: int, micro: int) -> None:
    """The global batch of a step is the same for any world size and micro-batch size."""
    steps = source.epoch_index(0).num_rows // BATCH + 2
    for step in range(steps):
        assert global_rows(source, step, world, micro) == global_rows(source, step)
    assert source.epoch_of(steps * BATCH - 1) == 1, "these steps cross the edge of an epoch"


def test_ranks_get_equal_rows(source: BatchSource) -> None:
    """Every rank gets the same number of rows."""
    for rank in range(4):
        batches = source.step(0, BATCH, rank, 4, 1)
        assert [len(batch.input_ids) for batch in batches] == [T, T]


def test_new_source_resumes_any_step(
    source: BatchSource, corpus: Corpus, tokenizer: LoadedTokenizer, tmp_path: Path
) -> None:
    """A new source gives the same batches from any step on."""
    steps = source.epoch_index(0).num_rows // BATCH + 2
    uninterrupted = [global_rows(source, step) for step in range(steps)]
    for start in (1, steps - 1):
        resumed = BatchSource(
            corpus, tokenizer, MaskOptions(), seed=4, row_tokens=T, cache=tmp_path / str(start)
        )
        assert [global_rows(resumed, step) for step in range(start, steps)] == uninterrupted[start:]


def test_epoch_has_every_sample_once(source: BatchSource, corpus: Corpus) -> None:
    """An epoch has every sample once, and the next epoch has other samples."""
    visited = []
    for epoch in (0, 1):
        numbers = np.array(epoch_rows(source, epoch))
        samples = read_samples(source.rows(numbers, len(numbers)))
        expected = [
            (sample["a_start"], sample["a_length"], sample["b_start"], sample["is_next"])
            for shard in corpus.shards
            for sample in make_samples(shard, shard, T, seed=4, epoch=epoch, short_share=0.1)
        ]
        found = [(s.a.start, len(s.a), s.b.start, int(s.is_next)) for s in samples]
        assert sorted(found) == sorted(expected)
        visited.append(found)
    assert visited[0] != visited[1]


def test_batch_across_epoch_boundary(source: BatchSource) -> None:
    """A batch across an epoch boundary has rows of both epochs."""
    edge = epoch_rows(source, 1).start
    both = source.rows(np.arange(edge - 2, edge + 2), 4)
    pieces = [source.rows(np.array([number]), 1) for number in range(edge - 2, edge + 2)]
    assert rows_of(both) == [rows_of(piece)[0] for piece in pieces]


def test_labels_restore_text_and_pairs(source: BatchSource, corpus: Corpus) -> None:
    """Labels restore the text, and NSP labels agree with the documents of the segments."""
    documents = np.concatenate(
        [shard.token_base + shard.sentences[shard.documents] for shard in corpus.shards]
    )
    for batch in source.step(0, BATCH, 0, 1, 2):
        for sample in read_samples(batch):
            a, b = (
                np.searchsorted(documents, [part.start, part.stop - 1], side="right")
                for part in (sample.a, sample.b)
            )
            assert a[0] == a[1] and b[0] == b[1], "a segment stays within its document"
            assert sample.is_next == (a[0] == b[0])
            assert not sample.is_next or sample.b.start == sample.a.stop


def test_sample_ids_and_padding(source: BatchSource) -> None:
    """Samples are numbered within their row, and padding is zero in every tensor."""
    batch = source.rows(np.array(epoch_rows(source, 0)), source.epoch_index(0).num_rows)
    for row, row_owners in enumerate(batch.sample_ids.view(-1, T)):
        owners = row_owners.tolist()
        tokens = sum(owner > 0 for owner in owners)
        assert owners[tokens:] == [0] * (T - tokens), "padding is at the end"
        assert sorted(set(owners[:tokens])) == list(range(1, max(owners) + 1))
        assert owners[:tokens] == sorted(owners[:tokens])
        for table in (batch.input_ids, batch.token_types, batch.positions):
            assert not table.view(-1, T)[row, tokens:].any()
    assert (batch.sample_ids == 0).any() and (batch.sample_ids > 1).any()


def test_special_tokens_never_masked(source: BatchSource, tokenizer: LoadedTokenizer) -> None:
    """Special tokens are never masked, and random replacements are ordinary tokens."""
    batch = source.rows(np.array(epoch_rows(source, 0)), source.epoch_index(0).num_rows)
    masked, labels = batch.mlm_targets
    assert (labels >= NUMBERED_FROM).all()
    shown = batch.input_ids[masked]
    random = shown[(shown != MASK) & (shown != labels)]
    assert len(random) and set(random.tolist()) <= set(tokenizer.ordinary_ids.tolist())
    rest = batch.input_ids.index_fill(0, masked, NUMBERED_FROM)
    assert set(rest[rest < NUMBERED_FROM].tolist()) == {PAD, CLS, SEP}
    ordinary = int((batch.sample_ids > 0).sum()) - 3 * len(batch.nsp_targets[0])
    assert abs(len(masked) - 0.15 * ordinary) < 5 * np.sqrt(ordinary * 0.15 * 0.85)


@pytest.mark.parametrize("given", [0, 3])
def test_rows_padded_with_blank_rows(source: BatchSource, given: int) -> None:
    """A batch of too few rows is padded with blank rows."""
    batch = source.rows(np.arange(given), 5)
    assert batch.input_ids.shape == (5 * T,)
    assert rows_of(batch)[:given] == rows_of(source.rows(np.arange(3), 3))[:given]
    empty = tuple([0] * T)
    assert rows_of(batch)[given:] == [(empty,) * 4 + ((),) * 4] * (5 - given)


def test_build_first_precedes_epoch_index(
    corpus: Corpus, tokenizer: LoadedTokenizer, tmp_path: Path
) -> None:
    """Each epoch index is passed to `build_first` before it is opened."""
    folders: list[int] = []

    def build_here(build: Callable[[], object]) -> None:
        folders.append(len(list(tmp_path.iterdir())))
        build()

    source = BatchSource(
        corpus, tokenizer, MaskOptions(), seed=4, row_tokens=T, cache=tmp_path,
        build_first=build_here,
    )  # fmt: skip
    source.epoch_index(1)
    source.epoch_index(0)
    assert folders == [0, 1]
