"""Statistics of a corpus: how long things are, which tokens it has, and how full its rows get.

Everything is counted in one stream over the shards, so memory does not grow with the corpus.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.corpus.inspection import beginning_of
from data_prep.corpus.shards import Corpus, Int64Array
from data_prep.samples.epoch_index import EpochIndexKey, open_epoch_index
from data_prep.samples.sentence_pairs import Pairs, sample_tokens

_READ_TOKENS = 1 << 24
_READ_ROWS = 1 << 16
# Rows are packed from so many tokens at most: more would change no figure that is shown.
_PACKED_TOKENS = 50_000_000
_LONGEST = 1 << 22  # tokens; whatever is longer counts as this


@dataclass(frozen=True)
class Lengths:
    """A histogram of lengths: `counts[n]` items are n tokens long."""

    counts: Int64Array

    @classmethod
    def of(cls, lengths: npt.NDArray[np.integer]) -> "Lengths":
        """Return the histogram of an array of lengths."""
        return cls(np.bincount(np.minimum(lengths.astype(np.int64), _LONGEST)))

    def __add__(self, other: "Lengths") -> "Lengths":
        """Return the histogram of both together."""
        longer, shorter = sorted((self.counts, other.counts), key=len, reverse=True)
        total = longer.copy()
        total[: len(shorter)] += shorter
        return Lengths(total)

    @property
    def number(self) -> int:
        """How many items were counted."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Mean length in tokens."""
        return float(self.counts @ np.arange(len(self.counts))) / max(1, self.number)

    @property
    def longest(self) -> int:
        """Greatest length in tokens."""
        return int(np.flatnonzero(self.counts)[-1]) if self.number else 0

    def quantile(self, share: float) -> int:
        """Return the shortest length that this share of the items does not exceed."""
        return int(np.searchsorted(np.cumsum(self.counts), share * self.number))


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The samples of one epoch at one row length, and the rows that they fill."""

    row_tokens: int
    samples: Lengths
    fills: Lengths  # tokens of each row

    @property
    def padding_share(self) -> float:
        """Share of the positions in the rows that no sample fills."""
        return 1.0 - self.fills.mean / self.row_tokens


@dataclass(frozen=True, kw_only=True)
class CorpusStatistics:
    """The distributions of one split of a corpus."""

    documents: Lengths
    sentences: Lengths
    token_counts: Int64Array  # how often each id occurs, [vocabulary]
    packings: tuple[Packing, ...]


def gather_statistics(
    corpus: Corpus, row_tokens: tuple[int, ...], pairs: Pairs, short_share: float
) -> CorpusStatistics:
    """Count lengths and tokens of a whole split, and pack the beginning of it into rows.

    Args:
        corpus: the split.
        row_tokens: the lengths of rows to try.
        pairs: kind of the samples.
        short_share: share of the segments that have a shorter target length.
    """
    nothing = Lengths(np.zeros(1, np.int64))
    documents, sentences = nothing, nothing
    token_counts = np.zeros(corpus.vocab_size, np.int64)
    for shard in corpus.shards:
        bounds = shard.sentences.astype(np.int64)
        documents += Lengths.of(np.diff(bounds[shard.documents.astype(np.int64)]))
        sentences += Lengths.of(np.diff(bounds))
        for start in range(0, shard.counts.tokens, _READ_TOKENS):
            piece = shard.tokens[start : start + _READ_TOKENS]
            token_counts += np.bincount(piece, minlength=corpus.vocab_size)
    beginning = beginning_of(corpus, tokens=_PACKED_TOKENS)
    return CorpusStatistics(
        documents=documents,
        sentences=sentences,
        token_counts=token_counts,
        packings=tuple(_pack(beginning, each, pairs, short_share) for each in row_tokens),
    )


def _pack(corpus: Corpus, row_tokens: int, pairs: Pairs, short_share: float) -> Packing:
    key = EpochIndexKey(
        seed=0, epoch=0, row_tokens=row_tokens, pairs=pairs, short_share=short_share
    )
    samples = fills = Lengths(np.zeros(1, np.int64))
    with tempfile.TemporaryDirectory() as cache:
        index = open_epoch_index(corpus, key, Path(cache))
        for start in range(0, index.num_rows, _READ_ROWS):
            read, _, rows = index.read(np.arange(start, min(start + _READ_ROWS, index.num_rows)))
            lengths = sample_tokens(read)
            samples += Lengths.of(lengths)
            fills += Lengths.of(np.bincount(rows, lengths))
    return Packing(row_tokens=row_tokens, samples=samples, fills=fills)
