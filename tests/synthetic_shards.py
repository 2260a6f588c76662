"""Shards without files, and an index of where their documents and sentences lie.

Both are made from lengths. Token positions count through all shards, as in a corpus.
"""

from bisect import bisect_right
from itertools import accumulate, chain
from typing import cast

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Shard, ShardCounts
from data_prep.samples.sentence_pairs import SampleArray
from tests.synthetic_corpora import Shards


class SyntheticShard:
    """A shard without files: the attributes that sample making reads."""

    def __init__(
        self, documents: list[list[int]], token_base: int = 0, name: str = "synthetic"
    ) -> None:
        sentences = [0, *accumulate(chain.from_iterable(documents))]
        self.token_base = token_base
        self.weight = 1.0
        self.sentences = np.array(sentences, "<u8")
        self.documents = np.array([0, *accumulate(len(document) for document in documents)], "<u8")
        self.counts = ShardCounts(
            name=name,
            documents=len(documents),
            sentences=len(sentences) - 1,
            tokens=sentences[-1],
        )


def synthetic_shard(
    documents: list[list[int]], token_base: int = 0, name: str = "synthetic"
) -> Shard:
    return cast(Shard, SyntheticShard(documents, token_base, name))


class PositionIndex:
    """The token positions at which documents and sentences begin."""

    def __init__(self, shards: Shards) -> None:
        documents = list(chain.from_iterable(shards))
        self.documents = [0, *accumulate(sum(document) for document in documents)]
        self.sentences = {0, *accumulate(chain.from_iterable(documents))}

    def document_of(self, position: int) -> int:
        return bisect_right(self.documents, position) - 1

    def document_of_range(self, start: int, length: int) -> int:
        """Return the document that holds all of a range."""
        first, last = self.document_of(start), self.document_of(start + length - 1)
        assert length > 0 and first == last, (start, length)
        return first


def segment_range(sample: np.void, which: str) -> range:
    """Return the token positions of segment `a` or `b`."""
    start = int(sample[f"{which}_start"])
    return range(start, start + int(sample[f"{which}_length"]))


def total_lengths(samples: SampleArray) -> npt.NDArray[np.int64]:
    """Return the tokens of each sample: both segments, [CLS], and a [SEP] after each segment."""
    lengths = [
        len(segment_range(sample, "a"))
        + len(segment_range(sample, "b"))
        + (3 if sample["b_length"] else 2)
        for sample in samples
    ]
    return np.array(lengths, np.int64)


def ks_distance(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples."""
    grid = np.arange(max(first.max(), second.max()) + 1)
    below = [np.searchsorted(np.sort(x), grid, side="right") / len(x) for x in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def deviations_from_half(flags: npt.NDArray[np.bool_]) -> float:
    """Return how many standard deviations the number of true flags is from half."""
    return abs(float(flags.sum()) - len(flags) / 2) / (len(flags) ** 0.5 / 2)
