"""Segments: cut the documents of a shard into segments that fill a row.

A document is cut from its first sentence to its last. Where a segment stops follows from where it
starts and from nothing before that: every draw is keyed on the starting boundary. So the stops of
all candidate segments are computed at once, and only the walk from one segment to the next is a
loop.

A segment stops in the middle of a sentence when the row is full; that sentence then starts the
next segment, so nothing of a document is skipped. A share of the segments has a shorter target
length, drawn uniformly from 2 tokens up, and stops at the end of the sentence that reaches it.
(BERT calls this `short_seq_prob`: a model that only ever saw full rows does worse on short input.)
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array, Shard
from data_prep.counter_rng import integers_below, key_of, uniform

BoolArray = npt.NDArray[np.bool_]

_SHORTEST_TARGET = 2  # tokens, as in BERT's create_pretraining_data.py


@dataclass(frozen=True, kw_only=True)
class SegmentRules:
    """How long segments are, and what keys their draws.

    Attributes:
        max_tokens: of the longest segment.
        max_sentence_tokens: a longer sentence gets boundaries inside, so that it can be split.
        short_share: share of the segments that have a shorter target length.
        key_parts: part of the key of every draw: seed, epoch, repetition and shard.
    """

    max_tokens: int
    max_sentence_tokens: int
    short_share: float
    key_parts: tuple[int | str, ...]


@dataclass(frozen=True)
class Segments:
    """Segments of one shard, as arrays of one entry each.

    Positions are tokens from the start of the shard. `first` and `last` are indices of boundaries,
    the positions at which sentences (or pieces of long ones) begin; `first` is unique to a segment
    and is the counter of its draws. A segment of a single sentence has `last == first`.
    """

    first: Int64Array
    last: Int64Array
    start: Int64Array
    stop: Int64Array
    document: Int64Array

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, chosen: npt.NDArray[np.generic]) -> "Segments":
        return Segments(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def has_several_sentences(self) -> BoolArray:
        """Whether a segment can be split between two of its sentences."""
        return self.last > self.first


class CandidateSegments:
    """For every boundary the segment that would start there.

    Attributes:
        sentences: positions at which sentences begin, and the end of the shard.
        document_bounds: positions at which documents begin, and the end of the shard.
        boundaries: positions at which a segment may start, and the end of the shard, [B + 1].
        segments: the candidates, [B].
        next_first: the boundary at which the next segment starts, [B]; B after the last one.
    """

    def __init__(self, shard: Shard, rules: SegmentRules) -> None:
        self.sentences: Int64Array = shard.sentences.astype(np.int64)
        self.document_bounds: Int64Array = self.sentences[shard.documents.astype(np.int64)]
        self.boundaries = _split_long(self.sentences, rules.max_sentence_tokens)
        starts = self.boundaries[:-1]
        document = np.searchsorted(self.document_bounds, starts, side="right") - 1

        reached = self._boundary_from(starts + _target_lengths(len(starts), rules))
        ends = self.document_bounds[document + 1]
        stops = np.minimum(np.minimum(reached, starts + rules.max_tokens), ends)
        # The sentence that a full row cuts is the last of one segment and starts the next.
        last = np.searchsorted(self.boundaries, stops, side="left") - 1
        whole = self.boundaries[last + 1] == stops
        self.segments = Segments(np.arange(len(starts)), last, starts, stops, document)
        self.next_first: Int64Array = np.where(whole, last + 1, last)

    def ends_sentence(self, positions: Int64Array) -> BoolArray:
        """Tell whether a sentence of the text ends at each position."""
        ends: BoolArray = self.sentences[np.searchsorted(self.sentences, positions)] == positions
        return ends

    def _boundary_from(self, positions: Int64Array) -> Int64Array:
        """Return the first boundary at or after each position."""
        at = np.searchsorted(self.boundaries, positions, side="left")
        return self.boundaries[np.minimum(at, len(self.boundaries) - 1)]


def walk(next_first: Int64Array) -> Int64Array:
    """Follow `next_first` from boundary 0 and return every boundary at which a segment starts."""
    links: list[int] = next_first.tolist()
    started, current, count = [], 0, len(links)
    while current < count:
        started.append(current)
        current = links[current]
    return np.array(started, np.int64)


def _target_lengths(count: int, rules: SegmentRules) -> Int64Array:
    """Return the target length of the candidate segment at every boundary."""
    counters = np.arange(count)
    full = np.full(count, rules.max_tokens, np.int64)
    if rules.short_share == 0:
        return full
    longer = integers_below(
        key_of("target", *rules.key_parts), counters, rules.max_tokens + 1 - _SHORTEST_TARGET
    )
    short = uniform(key_of("short", *rules.key_parts), counters) < rules.short_share
    return np.where(short, _SHORTEST_TARGET + longer, full)


def _split_long(sentences: Int64Array, max_tokens: int) -> Int64Array:
    """Add boundaries inside sentences longer than `max_tokens`."""
    lengths = np.diff(sentences)
    pieces = np.maximum(-(-lengths // max_tokens), 1)
    ends = np.cumsum(pieces)
    within = np.arange(int(ends[-1])) - np.repeat(ends - pieces, pieces)
    return np.append(np.repeat(sentences[:-1], pieces) + within * max_tokens, sentences[-1])
