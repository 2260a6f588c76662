"""Chunks: cut the documents of a shard into stretches that fill a row.

A document is walked from its first sentence to its last. Where a chunk stops follows from where
it starts and from nothing before that: every draw is keyed on the starting place. So the cuts of
all places are computed at once, and only the walk from one to the next is a loop.

A chunk stops in the middle of a sentence when the row is full; that sentence then opens the next
chunk, so nothing of a document is skipped. A share of the chunks aims at a shorter length, drawn
evenly from 2 tokens up, and stops where the sentence that reaches it ends. (BERT calls this
`short_seq_prob`: a model that only ever saw full rows does worse on short input.)
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
    """How long chunks are, and what keys their draws.

    Attributes:
        budget: tokens of the longest chunk.
        piece: tokens; a longer sentence gets borders inside, so that it can be parted there.
        short_share: share of the chunks that aim at a shorter length.
        place: keys every draw: seed, epoch, shard and whatever else tells visits apart.
    """

    budget: int
    piece: int
    short_share: float
    place: tuple[int | str, ...]


@dataclass(frozen=True)
class Chunks:
    """Chunks of one shard, as arrays of one entry each.

    Positions are tokens from the start of the shard. `first` and `last` are indices of borders,
    the positions at which sentences (or pieces of long ones) begin; `first` is unique to a chunk
    and so keys what is drawn for it. A chunk of a single sentence has `last == first`.
    """

    first: Int64Array
    last: Int64Array
    start: Int64Array
    stop: Int64Array
    document: Int64Array

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, chosen: npt.NDArray[np.generic]) -> "Chunks":
        return Chunks(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def several(self) -> BoolArray:
        """Whether a chunk holds more than one sentence, so that it can be parted."""
        return self.last > self.first


class Cuts:
    """Where a chunk would stop, for every border that it might start at."""

    def __init__(self, shard: Shard, rules: SegmentRules) -> None:
        self.sentences: Int64Array = shard.sentences.astype(np.int64)
        self.document_bounds: Int64Array = self.sentences[shard.documents.astype(np.int64)]
        self.borders = _split_long(self.sentences, rules.piece)
        starts = self.borders[:-1]
        document = np.searchsorted(self.document_bounds, starts, side="right") - 1

        reached = self._border_after(starts + _targets(len(starts), rules))
        stops = np.minimum(np.minimum(reached, starts + rules.budget), self._end_of(document))
        # The sentence that a full row cuts through is the last of one chunk and opens the next.
        last = np.searchsorted(self.borders, stops, side="left") - 1
        whole = self.borders[last + 1] == stops
        self.all = Chunks(np.arange(len(starts)), last, starts, stops, document)
        self.next_first: Int64Array = np.where(whole, last + 1, last)

    def ends_sentence(self, positions: Int64Array) -> BoolArray:
        """Tell whether each position is one where a sentence of the text ends."""
        ends: BoolArray = self.sentences[np.searchsorted(self.sentences, positions)] == positions
        return ends

    def _border_after(self, positions: Int64Array) -> Int64Array:
        at = np.searchsorted(self.borders, positions, side="left")
        return self.borders[np.minimum(at, len(self.borders) - 1)]

    def _end_of(self, document: Int64Array) -> Int64Array:
        return self.document_bounds[document + 1]


def follow(next_first: Int64Array) -> Int64Array:
    """Walk from border 0 along `next_first` and return every border that opens a chunk."""
    jumps: list[int] = next_first.tolist()
    opened, current, count = [], 0, len(jumps)
    while current < count:
        opened.append(current)
        current = jumps[current]
    return np.array(opened, np.int64)


def _targets(count: int, rules: SegmentRules) -> Int64Array:
    """Return the length that a chunk aims at, for every border that it might start at."""
    counters = np.arange(count)
    full = np.full(count, rules.budget, np.int64)
    if rules.short_share == 0:
        return full
    longer = integers_below(
        key_of("target", *rules.place), counters, rules.budget + 1 - _SHORTEST_TARGET
    )
    short = uniform(key_of("short", *rules.place), counters) < rules.short_share
    return np.where(short, _SHORTEST_TARGET + longer, full)


def _split_long(sentences: Int64Array, limit: int) -> Int64Array:
    """Add borders inside sentences longer than `limit`."""
    lengths = np.diff(sentences)
    pieces = np.maximum(-(-lengths // limit), 1)
    ends = np.cumsum(pieces)
    within = np.arange(int(ends[-1])) - np.repeat(ends - pieces, pieces)
    return np.append(np.repeat(sentences[:-1], pieces) + within * limit, sentences[-1])
