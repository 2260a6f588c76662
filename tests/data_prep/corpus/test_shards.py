"""The corpus format: what was written is read back, and what has changed is refused."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus, read_corpus_manifest, token_type_for
from data_prep.counter_rng import integers_below, key_of
from data_prep.errors import UserError
from data_prep.manifest import MANIFEST
from tests.synthetic_corpora import NUMBERED_FROM, draw_shards, numbered_corpus, write_corpus

DOCUMENTS = [[[5, 6, 7], [8]], [[9, 9]], [[10], [11, 12], [13]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a corpus of three train documents in two shards, and one held out."""
    path = tmp_path / "corpus"
    splits = {"train": [DOCUMENTS[:2], DOCUMENTS[2:]], "validation": [[[[14, 15]]]]}
    write_corpus(path, splits, vocab_size=100)
    return path


def test_corpus_round_trips_documents(folder: Path) -> None:
    """Documents are read as they were written."""
    corpus = Corpus.open(folder)
    read = [
        [sentence.tolist() for sentence in corpus.document(index)]
        for index in range(corpus.num_documents)
    ]
    assert read == DOCUMENTS
    assert (corpus.num_documents, corpus.num_sentences, corpus.num_tokens) == (3, 6, 10)
    assert [s.tolist() for s in Corpus.open(folder, "validation").document(0)] == [[14, 15]]
    with pytest.raises(IndexError):
        corpus.document(3)


def test_empty_split_has_no_documents(tmp_path: Path) -> None:
    """A split without documents is empty."""
    write_corpus(tmp_path / "corpus", {"train": [DOCUMENTS]})
    corpus = Corpus.open(tmp_path / "corpus", "validation")
    assert (corpus.num_documents, corpus.num_sentences, corpus.num_tokens) == (0, 0, 0)


def test_gather_matches_plain_loop(tmp_path: Path) -> None:
    """Gathering ranges across shards equals a loop over tokens."""
    corpus = numbered_corpus(tmp_path / "corpus", draw_shards("gather", (4, 1, 3)))
    key, size = key_of("ranges"), 300
    shards = [corpus.shards[i] for i in integers_below(key, np.arange(size), 3)]
    room = np.array([shard.counts.tokens for shard in shards])
    lengths = integers_below(key_of("length"), np.arange(size), np.minimum(room, 60))
    starts = integers_below(key_of("start"), np.arange(size), room - lengths + 1)
    starts += [shard.token_base for shard in shards]
    naive = [
        NUMBERED_FROM + position
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
        for position in range(start, start + length)
    ]
    assert 0 in lengths, "an empty range is among them"
    assert corpus.gather(starts, lengths).tolist() == naive
    assert corpus.gather(starts[:0], lengths[:0]).tolist() == []


def test_shards_of_finds_owner(tmp_path: Path) -> None:
    """The shard of each token position is the one that holds it."""
    corpus = numbered_corpus(tmp_path / "corpus", [[[3, 2]], [[4]], [[1], [1]]])
    owners = corpus.shards_of(np.arange(corpus.num_tokens))
    assert owners.tolist() == [0] * 5 + [1] * 4 + [2] * 2


def test_token_type_is_smallest_fitting() -> None:
    """Ids take two bytes as long as the largest one fits."""
    assert token_type_for(1 << 16) == np.dtype("<u2")  # the largest id is 65,535
    assert token_type_for((1 << 16) + 1) == np.dtype("<u4")


@pytest.mark.parametrize(("vocab_size", "width"), [(65_536, 2), (65_537, 4)])
def test_largest_id_round_trips(tmp_path: Path, vocab_size: int, width: int) -> None:
    """The largest id is read as it was written, with two bytes and with four."""
    path = tmp_path / "corpus"
    write_corpus(path, {"train": [[[[vocab_size - 1, 5]]]]}, vocab_size=vocab_size)
    corpus = Corpus.open(path)
    assert corpus.document(0)[0].tolist() == [vocab_size - 1, 5]
    assert corpus.shards[0].tokens.dtype.itemsize == width
    assert (path / "train_00000.tokens.bin").stat().st_size == 2 * width


def test_shard_files_are_plain_arrays(folder: Path) -> None:
    """The files of a shard are plain little-endian arrays."""
    assert np.fromfile(folder / "train_00000.tokens.bin", "<u2").tolist() == [5, 6, 7, 8, 9, 9]
    assert np.fromfile(folder / "train_00000.sentences.bin", "<u8").tolist() == [0, 3, 4, 6]
    assert np.fromfile(folder / "train_00000.documents.bin", "<u8").tolist() == [0, 2, 3]


@pytest.mark.parametrize("kind", ["tokens", "sentences", "documents"])
def test_open_refuses_changed_size(folder: Path, kind: str) -> None:
    """A file of another size than the manifest states is refused."""
    with (folder / f"train_00001.{kind}.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=rf"train_00001\.{kind}\.bin has \d+ bytes instead of"):
        Corpus.open(folder)


def test_hashes_find_flipped_byte(folder: Path) -> None:
    """A flipped byte is found when contents are verified."""
    path = folder / "train_00000.tokens.bin"
    path.write_bytes(b"\x01" + path.read_bytes()[1:])
    assert Corpus.open(folder).num_documents == 3
    with pytest.raises(UserError, match=r"contents of train_00000\.tokens\.bin have changed"):
        read_corpus_manifest(folder, hashes=True)


def test_open_refuses_other_format(folder: Path) -> None:
    """Another format and a folder without manifest are refused."""
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace("stillhouse-corpus-2", "stillhouse-corpus-0"))
    with pytest.raises(UserError, match="has the format 'stillhouse-corpus-0'"):
        Corpus.open(folder)
    with pytest.raises(UserError, match=r"has no manifest\.json: prepare it with"):
        Corpus.open(folder.parent)


def test_fingerprint_depends_on_contents_and_tokenizer(tmp_path: Path) -> None:
    """The fingerprint depends on the contents and on the tokenizer."""

    def made(name: str, documents: list[list[list[int]]], tokenizer: str) -> str:
        write_corpus(tmp_path / name, {"train": [documents]}, tokenizer=tokenizer)
        return Corpus.open(tmp_path / name).fingerprint

    first = made("a", DOCUMENTS, "t")
    assert made("b", DOCUMENTS, "t") == first
    assert made("c", DOCUMENTS[::-1], "t") != first
    assert made("d", DOCUMENTS, "u") != first
