"""The corpus format: token shards that `np.memmap` opens as they are.

A shard is three plain little-endian arrays, so that a training rank reads any sentence without
parsing and pages in only what it touches:

    NAME.tokens.bin      uint16 (uint32 above 65,536 ids)   the token ids of all its documents
    NAME.sentences.bin   uint64   sentence i is tokens[sentences[i] : sentences[i + 1]]
    NAME.documents.bin   uint64   document j is sentences documents[j] to documents[j + 1]

Both offset arrays have one entry more than they describe. A corpus is a folder of shards with a
manifest; its documents are divided into the splits `train` and `validation`.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from data_prep.errors import UserError
from data_prep.manifest import find_damage, fingerprint, problem_of, read_manifest

FORMAT = "stillhouse-corpus-2"
SPLITS = ("train", "validation")
OFFSET_TYPE = np.dtype("<u8")

Int64Array = npt.NDArray[np.int64]


def token_type_for(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds every id of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def shard_files(name: str) -> tuple[str, str, str]:
    """Return the names of a shard's token, sentence and document files."""
    return f"{name}.tokens.bin", f"{name}.sentences.bin", f"{name}.documents.bin"


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """The counts of one shard, as in the manifest."""

    name: str
    documents: int
    sentences: int
    tokens: int
    corpus: str = "text"  # the input of the recipe it was made from


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents as flat arrays; both offset arrays start at 0.

    Sentence i is `tokens[sentences[i] : sentences[i + 1]]`; document j is the sentences from
    `documents[j]` to `documents[j + 1]`.
    """

    tokens: npt.NDArray[Any]
    sentences: Int64Array
    documents: Int64Array

    def keep(self, chosen: npt.NDArray[np.bool_]) -> "Documents":
        """Return the sentences of a mask [S], and the documents that have any of them."""
        lengths = np.diff(self.sentences)
        counts = np.diff(offsets_of(np.cumsum(chosen))[self.documents])
        return Documents(
            tokens=self.tokens[np.repeat(chosen, lengths)],
            sentences=offsets_of(np.cumsum(lengths[chosen])),
            documents=offsets_of(np.cumsum(counts[counts > 0])),
        )

    @property
    def num_documents(self) -> int:
        """The number of documents."""
        return len(self.documents) - 1


class ShardWriter:
    """Writes documents to the three files of one shard, without holding them in memory."""

    def __init__(
        self, directory: Path, name: str, token_type: np.dtype[Any], corpus: str = "text"
    ) -> None:
        self.files = shard_files(name)
        self.num_tokens = 0
        self._name = name
        self._corpus = corpus
        self._token_type = token_type
        self._tokens, self._sentences, self._documents = (
            (directory / file).open("wb") for file in self.files
        )
        self._num_sentences = self._num_documents = 0
        for file in (self._sentences, self._documents):
            file.write(np.zeros(1, OFFSET_TYPE).tobytes())

    def add(self, added: Documents) -> None:
        """Append documents, none of which is empty."""
        self._tokens.write(added.tokens.astype(self._token_type, copy=False).tobytes())
        sentences = added.sentences[1:] + self.num_tokens
        self._sentences.write(sentences.astype(OFFSET_TYPE).tobytes())
        documents = added.documents[1:] + self._num_sentences
        self._documents.write(documents.astype(OFFSET_TYPE).tobytes())
        self.num_tokens += len(added.tokens)
        self._num_sentences += len(sentences)
        self._num_documents += len(documents)

    def close(self) -> ShardCounts:
        """Close the files and return their counts."""
        for file in (self._tokens, self._sentences, self._documents):
            file.close()
        return ShardCounts(
            name=self._name,
            documents=self._num_documents,
            sentences=self._num_sentences,
            tokens=self.num_tokens,
            corpus=self._corpus,
        )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Shard:
    """One shard, memory-mapped read-only.

    `token_base` is the position of its first token in the split, `weight` the average number of
    times an epoch takes each of its documents.
    """

    def __init__(
        self,
        directory: Path,
        counts: ShardCounts,
        token_type: np.dtype[Any],
        token_base: int,
        weight: float = 1.0,
    ) -> None:
        tokens, sentences, documents = (directory / file for file in shard_files(counts.name))
        self.counts = counts
        self.token_base = token_base
        self.weight = weight
        self.tokens = np.memmap(tokens, token_type, "r", shape=(counts.tokens,))
        self.sentences = np.memmap(sentences, OFFSET_TYPE, "r", shape=(counts.sentences + 1,))
        self.documents = np.memmap(documents, OFFSET_TYPE, "r", shape=(counts.documents + 1,))

    def read(self) -> Documents:
        """Return the documents of the shard, in memory."""
        return Documents(
            tokens=np.array(self.tokens),
            sentences=self.sentences.astype(np.int64),
            documents=self.documents.astype(np.int64),
        )


class Corpus:
    """One split of a corpus. Token positions count through its shards in order."""

    def __init__(self, path: Path, manifest: dict[str, Any], split: str) -> None:
        self.path = path
        self.split = split
        self.vocab_size: int = manifest["vocab_size"]
        self.tokenizer_fingerprint: str = manifest["tokenizer"]
        self.fingerprint = fingerprint([manifest["tokenizer"], manifest["files"]])
        token_type = np.dtype(manifest["token_type"]).newbyteorder("<")
        inputs = manifest["options"].get("inputs", {})
        # Of the sentence rules of each input, in order.
        self.languages: list[str] = list(
            dict.fromkeys(each["language"] for each in inputs.values() if "language" in each)
        )
        self.shards: list[Shard] = []
        self.num_tokens = 0
        for entry in manifest["splits"][split]["shards"]:
            counts = ShardCounts(**entry)
            weight = inputs.get(counts.corpus, {}).get("weight", 1.0)
            self.shards.append(Shard(path, counts, token_type, self.num_tokens, weight))
            self.num_tokens += counts.tokens
        self.num_documents = sum(shard.counts.documents for shard in self.shards)
        self.num_sentences = sum(shard.counts.sentences for shard in self.shards)
        self._token_bases = np.array([shard.token_base for shard in self.shards], np.int64)

    @classmethod
    def open(cls, path: Path, split: str = "train") -> "Corpus":
        """Open a split after comparing every file's size with the manifest.

        Raises:
            UserError: when the folder is not a complete corpus, or a file's size has changed.
        """
        return cls(path, read_corpus_manifest(path, hashes=False), split)

    def document(self, index: int) -> list[npt.NDArray[Any]]:
        """Return the sentences of one document as arrays of token ids."""
        for shard in self.shards:
            if index < shard.counts.documents:
                first, last = (int(x) for x in shard.documents[index : index + 2])
                bounds = shard.sentences[first : last + 1].astype(np.int64)
                return [shard.tokens[a:b] for a, b in pairwise(bounds)]
            index -= shard.counts.documents
        raise IndexError("the split has fewer documents")

    def shards_of(self, positions: Int64Array) -> Int64Array:
        """Return the index of the shard that holds each token position."""
        return np.searchsorted(self._token_bases, positions, side="right") - 1

    def gather(
        self,
        starts: Int64Array,
        lengths: Int64Array,
        out: Int64Array | None = None,
        offsets: Int64Array | None = None,
    ) -> Int64Array:
        """Return the concatenated tokens of many ranges as one int64 array.

        Args:
            starts: first token position of each range; a range stays within one shard.
            lengths: number of tokens of each range.
            out: write into this array instead, and return it.
            offsets: index in `out` of each range; consecutive by default.
        """
        if offsets is None:
            offsets = np.cumsum(lengths) - lengths
        if out is None:
            out = np.empty(int(lengths.sum()), np.int64)
        # Slicing a memmap costs ten times as much as slicing the array behind it.
        tokens = [np.asarray(shard.tokens) for shard in self.shards]
        owners = self.shards_of(starts)
        first = starts - self._token_bases[owners]
        # One copy a range: for ranges of a few dozen tokens this is as fast as an index for every
        # token, and its speed does not depend on the number of shards.
        for owner, start, stop, offset, end in zip(
            owners.tolist(),
            first.tolist(),
            (first + lengths).tolist(),
            offsets.tolist(),
            (offsets + lengths).tolist(),
            strict=True,
        ):
            out[offset:end] = tokens[owner][start:stop]
        return out


def offsets_of(ends: Int64Array) -> Int64Array:
    """Return offsets, one more than there are ends: 0 and the ends."""
    return np.concatenate([np.zeros(1, np.int64), ends])


class _SplitFacts(BaseModel):
    documents: NonNegativeInt
    sentences: NonNegativeInt
    tokens: NonNegativeInt
    shards: list[ShardCounts]


class _CorpusFacts(BaseModel):
    """The entries of a manifest that opening a corpus depends on."""

    model_config = ConfigDict(strict=True)

    token_type: Literal["uint16", "uint32"]
    tokenizer: str
    vocab_size: PositiveInt
    options: dict[str, Any]
    splits: dict[str, _SplitFacts]


def read_corpus_manifest(path: Path, hashes: bool) -> dict[str, Any]:
    """Return the manifest of a corpus after comparing sizes, or every byte, with it.

    Raises:
        UserError: naming the first file that is missing or has changed.
    """
    remedy = "prepare it with launch/prepare_data.py, or correct corpus.path"
    manifest = read_manifest(path, "corpus", remedy)
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"The corpus {path} has the format {manifest.get('format')!r}, not {FORMAT!r}: "
            "prepare it again with this version."
        )
    if damage := _find_contradiction(manifest) or find_damage(path, manifest, hashes):
        raise UserError(
            f"The corpus {path} does not match its manifest: {damage}; prepare it again."
        )
    return manifest


def _find_contradiction(manifest: dict[str, Any]) -> str | None:
    """Return the first inconsistency of a manifest that prevents opening its shards, or None.

    File sizes follow from counts, so a changed count is found as well.
    """
    try:
        facts = _CorpusFacts.model_validate(manifest)
    except ValidationError as error:
        return problem_of(error)
    if missing := [split for split in SPLITS if split not in facts.splits]:
        return f"it has no split {missing[0]!r}"
    for split, found in facts.splits.items():
        for what in ("documents", "sentences", "tokens"):
            if (total := sum(getattr(s, what) for s in found.shards)) != getattr(found, what):
                return f"its {split} split has {getattr(found, what)} {what}, its shards {total}"
    width = np.dtype(facts.token_type).itemsize
    for counts in (counts for split in facts.splits.values() for counts in split.shards):
        sizes = (
            counts.tokens * width,
            (counts.sentences + 1) * OFFSET_TYPE.itemsize,
            (counts.documents + 1) * OFFSET_TYPE.itemsize,
        )
        for name, size in zip(shard_files(counts.name), sizes, strict=True):
            if manifest["files"].get(name, {}).get("bytes") != size:
                return f"it does not list {name} with {size} bytes, as the shard's counts require"
    return None
