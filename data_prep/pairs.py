"""Sentence pairs: cut the documents of a shard into next-sentence-prediction samples.

A sample is `[CLS] A [SEP] B [SEP]`. A document is walked from its first sentence to its last in
chunks that fill a row; a chunk is parted into A and B at a sentence border. In half of the samples
B is what follows A; in the other half B is a stretch of another document that is as long as what
it replaces, so the length of a sample does not give its label away (BERT, arXiv 1810.04805, 3.1).

A chunk stops in the middle of a sentence when the row is full; that sentence then opens the next
chunk, so nothing of a document is skipped.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.keyed import hash64, integers_below, key_of
from data_prep.shards import Int64Array, Shard

SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]
SAMPLE = np.dtype(
    [
        ("a_start", "<i8"),
        ("b_start", "<i8"),
        ("a_length", "<u2"),
        ("b_length", "<u2"),
        ("is_next", "<u2"),
    ]
)
SampleArray = npt.NDArray[np.void]


class Chunks:
    """The chunks of one shard: where each starts and stops, and where its parts may meet.

    `first` and `last` index `borders`, the token positions at which sentences begin.
    """

    def __init__(self, shard: Shard, budget: int) -> None:
        sentences = shard.sentences.astype(np.int64)
        self.document_bounds: Int64Array = sentences[shard.documents.astype(np.int64)]
        self.borders = _split_long(sentences, budget // 2)
        starts = self.borders[:-1]
        document = np.searchsorted(self.document_bounds, starts, side="right") - 1
        stops = np.minimum(starts + budget, self.document_bounds[document + 1])
        last = np.searchsorted(self.borders, stops, side="left") - 1
        whole = self.borders[last + 1] == stops
        self.first = _follow(np.where(whole, last + 1, last))
        self.last: Int64Array = last[self.first]
        self.start: Int64Array = starts[self.first]
        self.stop: Int64Array = stops[self.first]
        self.document: Int64Array = document[self.first]


def make_samples(
    shard: Shard, partner: Shard, row_tokens: int, seed: int, epoch: int
) -> SampleArray:
    """Return the samples of one shard in document order.

    Args:
        shard: whose documents are cut.
        partner: where the B of an unrelated pair comes from; `shard` itself when it has
            several documents.
        row_tokens: longest sample, its three special tokens included.
        seed, epoch: key every choice, together with the shard's name.
    """
    budget = row_tokens - SPECIAL_TOKENS
    chunks = Chunks(shard, budget)
    counters = np.arange(len(chunks.first))
    place = (seed, epoch, shard.counts.name)

    # A chunk of several sentences is parted after a keyed number of them; one of a single
    # sentence has an A and no B of its own, so it can only become an unrelated pair.
    several = chunks.last > chunks.first
    a_sentences = 1 + integers_below(
        key_of("border", *place), counters, np.maximum(chunks.last - chunks.first, 1)
    )
    meeting = np.where(several, chunks.borders[chunks.first + a_sentences], chunks.stop)
    unrelated = _choose_unrelated(~several, hash64(key_of("label", *place), counters))

    samples = np.zeros(len(counters), SAMPLE)
    samples["a_start"] = shard.token_base + chunks.start
    samples["a_length"] = meeting - chunks.start
    samples["b_start"] = shard.token_base + meeting
    samples["b_length"] = chunks.stop - meeting
    samples["is_next"] = ~unrelated
    wanted = np.where(several, chunks.stop - meeting, budget - (meeting - chunks.start))
    drawn = _draw_elsewhere(
        partner,
        chunks.document_bounds[chunks.document[unrelated] + np.array([[0], [1]])]
        if partner is shard
        else np.zeros((2, int(unrelated.sum())), np.int64),
        wanted[unrelated],
        key_of("partner", *place),
        counters[unrelated],
    )
    samples["b_start"][unrelated], samples["b_length"][unrelated] = drawn
    return samples[samples["b_length"] > 0]


def _split_long(sentences: Int64Array, limit: int) -> Int64Array:
    """Add borders inside sentences longer than `limit`, so that every full chunk can be parted."""
    lengths = np.diff(sentences)
    pieces = np.maximum(-(-lengths // limit), 1)
    ends = np.cumsum(pieces)
    within = np.arange(int(ends[-1])) - np.repeat(ends - pieces, pieces)
    return np.append(np.repeat(sentences[:-1], pieces) + within * limit, sentences[-1])


def _follow(next_first: Int64Array) -> Int64Array:
    """Walk from sentence 0 along `next_first` and return every sentence that opens a chunk."""
    jumps: list[int] = next_first.tolist()
    opened, current, count = [], 0, len(jumps)
    while current < count:
        opened.append(current)
        current = jumps[current]
    return np.array(opened, np.int64)


def _choose_unrelated(
    forced: npt.NDArray[np.bool_], bits: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """Mark half of the samples as unrelated pairs: first the forced ones, then by keyed lot."""
    half = len(forced) // 2
    order = np.lexsort((bits, ~forced))
    unrelated = forced.copy()
    unrelated[order[:half]] = True
    return unrelated


def _draw_elsewhere(
    partner: Shard, own: Int64Array, wanted: Int64Array, key: np.uint64, counters: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return (start, length) of stretches outside each sample's own document.

    The position is uniform over the partner's other tokens, moved back far enough that the
    wanted length fits into its document (where the document is that long), then to the start
    of its sentence.
    """
    sentences = partner.sentences.astype(np.int64)
    bounds = sentences[partner.documents.astype(np.int64)]
    own_start, own_stop = own
    others = bounds[-1] - (own_stop - own_start)
    position = integers_below(key, counters, others)
    position = np.where(position >= own_start, position + (own_stop - own_start), position)
    document = np.searchsorted(bounds, position, side="right") - 1
    latest = np.maximum(bounds[document], bounds[document + 1] - wanted)
    position = np.minimum(position, latest)
    start = sentences[np.searchsorted(sentences, position, side="right") - 1]
    return partner.token_base + start, np.minimum(wanted, bounds[document + 1] - start)
