"""The epoch index: a pure function of the corpus and its key, cached between runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.samples import epoch_index as epoch_index_module
from data_prep.samples.epoch_index import (
    MAX_ROW_TOKENS,
    EpochIndex,
    EpochIndexKey,
    open_epoch_index,
)
from data_prep.samples.sentence_pairs import SampleArray, make_samples
from tests.synthetic_corpora import draw_shards, numbered_corpus, write_corpus

KEY = EpochIndexKey(seed=3, epoch=0, row_tokens=64)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Return three shards; the second has a single document."""
    path = tmp_path_factory.mktemp("epoch_index") / "corpus"
    return numbered_corpus(path, draw_shards("plan", (20, 1, 15)))


def key_for(**changes: Any) -> EpochIndexKey:
    return EpochIndexKey(**{**vars(KEY), **changes})


def contents(cache: Path) -> dict[str, bytes]:
    files = (path for path in cache.rglob("*") if path.is_file())
    return {str(path.relative_to(cache)): path.read_bytes() for path in files}


def read_all(index: EpochIndex) -> tuple[SampleArray, list[int], list[int]]:
    samples, numbers, rows = index.read(np.arange(index.num_rows))
    return samples, numbers.tolist(), rows.tolist()


def test_index_builds_are_identical(corpus: Corpus, tmp_path: Path) -> None:
    """Two builds give the same files, byte for byte."""
    for name in ("a", "b"):
        open_epoch_index(corpus, KEY, tmp_path / name)
    assert len(contents(tmp_path / "a")) == 3
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_epoch_holds_each_sample_once(corpus: Corpus, tmp_path: Path) -> None:
    """An epoch holds every sample of every shard once."""
    index = open_epoch_index(corpus, KEY, tmp_path)
    samples, numbers, rows = read_all(index)
    shards = corpus.shards
    negatives = [shards[0], shards[2], shards[2]]
    made = [
        make_samples(shard, other, 64, seed=3, epoch=0).tolist()
        for shard, other in zip(shards, negatives, strict=True)
    ]
    assert sorted(samples.tolist()) == sorted(sample for shard in made for sample in shard)
    assert sorted(numbers) == list(range(index.num_samples))
    assert sorted(set(rows)) == list(range(index.num_rows)) and rows == sorted(rows)
    tokens = 3 + samples["a_length"].astype(int) + samples["b_length"]
    assert np.bincount(rows, tokens).max() <= 64
    assert index.num_tokens == tokens.sum()
    assert index.padding_share == pytest.approx(1 - tokens.sum() / (64 * index.num_rows))


def test_row_subsets_match_full_read(corpus: Corpus, tmp_path: Path) -> None:
    """Any rows, in any order, are those of a read of the whole epoch."""
    index = open_epoch_index(corpus, KEY, tmp_path)
    _, numbers, rows = read_all(index)
    positions = np.array([7, 0, 7, index.num_rows - 1])
    samples, found, entries = index.read(positions)
    for entry, position in enumerate(positions):
        expected = [n for n, row in zip(numbers, rows, strict=True) if row == position]
        assert found[entries == entry].tolist() == expected
    by_number = dict(zip(numbers, read_all(index)[0].tolist(), strict=True))
    assert samples.tolist() == [by_number[number] for number in found.tolist()]


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 1},
        {"seed": 4},
        {"row_tokens": 65},
        {"pairs": "sentence_order"},
        {"pairs": "none"},
        {"short_share": 0.1},
    ],
)
def test_key_changes_index(corpus: Corpus, tmp_path: Path, change: dict[str, Any]) -> None:
    """Any other key gives another index."""
    first = read_all(open_epoch_index(corpus, KEY, tmp_path))[0]
    second = read_all(open_epoch_index(corpus, key_for(**change), tmp_path))[0]
    assert first.tobytes() != second.tobytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_epochs_shuffle_rows(corpus: Corpus, tmp_path: Path) -> None:
    """Another epoch has another order of rows."""
    first, second = (
        read_all(open_epoch_index(corpus, key_for(epoch=epoch), tmp_path))[1] for epoch in (0, 1)
    )
    size = min(len(first), len(second))
    assert np.mean(np.array(first[:size]) == np.array(second[:size])) < 0.1


def test_cached_index_is_reused(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached index is opened, not built again."""
    first = read_all(open_epoch_index(corpus, KEY, tmp_path))

    def build_again(*arguments: object) -> None:
        raise AssertionError("the index is in the cache")

    monkeypatch.setattr(epoch_index_module, "_write_tables", build_again)
    assert read_all(open_epoch_index(corpus, KEY, tmp_path))[1:] == first[1:]


def test_index_belongs_to_corpus_and_split(corpus: Corpus, tmp_path: Path) -> None:
    """The index of another corpus or split is never opened."""
    shards = draw_shards("another", (20,))
    other = numbered_corpus(tmp_path / "other", shards)
    documents = [[[[5] * length for length in document] for document in shards[0]]]
    write_corpus(tmp_path / "both", {"train": documents, "validation": documents})
    splits = [Corpus.open(tmp_path / "both", split) for split in ("train", "validation")]
    for source in (corpus, other, *splits):
        open_epoch_index(source, KEY, tmp_path / "plans")
    assert len(list((tmp_path / "plans").iterdir())) == 4


@pytest.mark.parametrize("documents", [0, 1])
def test_index_refuses_too_few_documents(tmp_path: Path, documents: int) -> None:
    """Next-sentence pairs of fewer than two documents are refused."""
    write_corpus(tmp_path / "corpus", {"train": [[[[5, 6], [7]]]] * documents})
    corpus = Corpus.open(tmp_path / "corpus")
    with pytest.raises(UserError, match=rf"train split of .* has {documents} document\(s\), but"):
        open_epoch_index(corpus, KEY, tmp_path / "plans")


@pytest.mark.parametrize("row_tokens", [0, 15, MAX_ROW_TOKENS + 1])
def test_index_refuses_row_length(corpus: Corpus, row_tokens: int) -> None:
    """A row length out of range is refused."""
    with pytest.raises(UserError, match=rf"Rows of {row_tokens} tokens .* from 16 to 32768"):
        open_epoch_index(corpus, key_for(row_tokens=row_tokens), Path("nowhere"))


def test_one_document_without_negatives(tmp_path: Path) -> None:
    """One document gives samples of the kinds that need no other document."""
    corpus = numbered_corpus(tmp_path / "corpus", [[[20] * 30]])
    for pairs in ("sentence_order", "none"):
        assert open_epoch_index(corpus, key_for(pairs=pairs), tmp_path / "plans").num_samples >= 10


def test_weight_repeats_documents(tmp_path: Path) -> None:
    """A weight is how often an epoch takes each document, on average."""
    corpus = numbered_corpus(tmp_path / "corpus", draw_shards("weights", (300, 300)))
    corpus.shards[1].weight = 2.5
    index = open_epoch_index(corpus, key_for(pairs="none"), tmp_path / "plans")
    samples = index.read(np.arange(index.num_rows))[0]
    second = corpus.shards[1]
    starts = samples["a_start"].astype(np.int64) - second.token_base
    bounds = second.sentences[second.documents.astype(np.int64)]
    # A sample that starts where a document does begins a repetition of it.
    times = (starts[:, None] == bounds[None, :-1].astype(np.int64)).sum(axis=0)
    assert set(times.tolist()) == {2, 3} and abs(times.mean() - 2.5) < 0.15
    first_positions = [int(shard.sentences[shard.documents[0]]) for shard in corpus.shards]
    assert (samples["a_start"] == first_positions[0]).sum() == 1
    corpus.shards[1].weight = 1.0
    assert (
        open_epoch_index(corpus, key_for(pairs="none"), tmp_path / "plans").num_rows
        < index.num_rows
    )


@pytest.mark.parametrize("pairs", ["next_sentence", "sentence_order", "none"])
@pytest.mark.parametrize("row_tokens", [128, 512])
def test_padding_is_low_for_all_kinds(tmp_path: Path, row_tokens: int, pairs: str) -> None:
    """Padding is at most 2 % for every kind of sample."""
    corpus = numbered_corpus(tmp_path / "corpus", draw_shards("padding", (1000,)))
    key = key_for(row_tokens=row_tokens, pairs=pairs, short_share=0.1)
    assert 0 <= open_epoch_index(corpus, key, tmp_path / "plans").padding_share <= 0.02


def test_small_shards_do_not_add_padding(tmp_path: Path) -> None:
    """Many small shards do not add padding."""
    lengths = draw_shards("small", (4,) * 150)
    corpus = numbered_corpus(tmp_path / "corpus", lengths)
    index = open_epoch_index(corpus, key_for(row_tokens=512, pairs="none"), tmp_path / "plans")
    assert index.padding_share <= 0.02
    samples, numbers, rows = read_all(index)
    assert sorted(numbers) == list(range(index.num_samples))
    assert np.bincount(rows, 2 + samples["a_length"].astype(int)).max() <= 512
    starts = {int(start) for start in samples["a_start"]}
    bounds = [shard.token_base for shard in corpus.shards]
    assert starts.issuperset(bounds), "every shard is used"
