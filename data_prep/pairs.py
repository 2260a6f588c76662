"""Sentence pairs: cut the documents of a shard into next-sentence-prediction samples.

A sample is `[CLS] A [SEP] B [SEP]`. A document is walked from its first sentence to its last in
chunks that fill a row; a chunk is parted into A and B at a sentence border. In half of the samples
B is what follows A; in the other half B is a stretch of another document (BERT, arXiv 1810.04805,
3.1). That stretch is as long as what it replaces and, where that ended with a sentence, ends with
one too, so that neither the length of a sample nor its last word gives the label away.

A chunk stops in the middle of a sentence when the row is full; that sentence then opens the next
chunk, so nothing of a document is skipped.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.keyed import hash64, integers_below, key_of
from data_prep.shards import Int64Array, Shard

SPECIALS_PER_PAIR = 3  # [CLS] A [SEP] B [SEP]
_TRIES = 4  # places looked at for a B from elsewhere, so that whole sentences fit its length
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
        self.ends_sentence = sentences[np.searchsorted(sentences, self.stop)] == self.stop


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
    budget = row_tokens - SPECIALS_PER_PAIR
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
    a_length = meeting - chunks.start
    unrelated = _choose_unrelated(~several, hash64(key_of("label", *place), counters))

    samples = np.zeros(len(counters), SAMPLE)
    samples["a_start"] = shard.token_base + chunks.start
    samples["a_length"] = a_length
    samples["b_start"] = shard.token_base + meeting
    samples["b_length"] = chunks.stop - meeting
    samples["is_next"] = ~unrelated
    samples["b_start"][unrelated], samples["b_length"][unrelated] = _draw_elsewhere(
        partner,
        chunks.document[unrelated] if partner is shard else np.full(int(unrelated.sum()), -1),
        _choose_models(chunks, several, a_length, key_of("model", *place), counters)[:, unrelated],
        budget - a_length[unrelated],
        key_of("partner", *place),
        counters[unrelated],
    )
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


def _choose_models(
    chunks: Chunks,
    several: npt.NDArray[np.bool_],
    a_length: Int64Array,
    key: np.uint64,
    counters: Int64Array,
) -> Int64Array:
    """Return what a B from elsewhere should look like: its length, and 1 if it ends a sentence.

    It takes after the B that it replaces. A chunk of a single sentence has none: it takes after
    another chunk, by lot, so that single sentences do not make the longest samples.
    """
    whole = np.flatnonzero(several) if several.any() else counters
    model = np.where(several, counters, whole[integers_below(key, counters, len(whole))])
    length = chunks.stop[model] - chunks.start[model] - a_length
    return np.stack([np.where(several, length, np.maximum(length, 1)), chunks.ends_sentence[model]])


def _draw_elsewhere(
    partner: Shard,
    own: Int64Array,
    model: Int64Array,
    room: Int64Array,
    key: np.uint64,
    counters: Int64Array,
) -> tuple[Int64Array, Int64Array]:
    """Return (start, length) of stretches outside each sample's own document.

    Of a few places drawn for each, the one is taken where the length comes out best.

    Args:
        partner: where they come from.
        own: the document of the partner that each must keep away from; -1 for none, [N].
        model: the length of each, and 1 if it should end where a sentence ends, [2, N].
        room: the longest that each may be, [N].
        key, counters: decide where each lies.
    """
    sentences = partner.sentences.astype(np.int64)
    bounds = sentences[partner.documents.astype(np.int64)]
    wanted, ends_sentence = model[:, :, None]
    tries = counters[:, None] * _TRIES + np.arange(_TRIES)
    position, document = _draw_positions(bounds, own[:, None], wanted, key, tries)

    # Back far enough that the length fits into the document, then to the start of a sentence.
    latest = np.maximum(bounds[document], bounds[document + 1] - wanted)
    position = np.minimum(position, latest)
    start = sentences[np.searchsorted(sentences, position, side="right") - 1]
    stop = np.minimum(start + wanted, bounds[document + 1])

    before = sentences[np.searchsorted(sentences, stop, side="right") - 1]
    after = sentences[np.searchsorted(sentences, stop, side="left")]
    nearer = (after - stop < stop - before) | (before == start)
    border = np.where(nearer & (after - start <= room[:, None]), after, before)
    stop = np.where(ends_sentence.astype(bool) & (border > start), border, stop)

    best = np.abs(stop - start - wanted).argmin(axis=1)
    each = np.arange(len(counters))
    start, stop = start[each, best], stop[each, best]
    return partner.token_base + start, stop - start


def _draw_positions(
    bounds: Int64Array, own: Int64Array, wanted: Int64Array, key: np.uint64, counters: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return a token position and its document, uniform over the tokens of other documents.

    Documents shorter than wanted are left out, unless there are no others. Laying documents out
    from the longest to the shortest turns this into drawing below a limit.
    """
    lengths = np.diff(bounds)
    by_length = np.argsort(-lengths, kind="stable")
    ends: Int64Array = np.cumsum(lengths[by_length])
    # The own document's place in that order; "none" comes after all, and has no tokens.
    rank = np.append(np.argsort(by_length), len(lengths))[own]
    own_length = np.append(lengths, 0)[own]
    own_start = np.append(ends, ends[-1])[rank] - own_length

    count = np.searchsorted(-lengths[by_length], -wanted, side="right")
    count = np.where(count > (rank < count), count, len(lengths))
    limit = ends[count - 1] - np.where(rank < count, own_length, 0)
    place = integers_below(key, counters, limit)
    place += np.where(place >= own_start, own_length, 0)
    nth = np.searchsorted(ends, place, side="right")
    document: Int64Array = by_length[nth]
    position: Int64Array = bounds[document + 1] - (ends[nth] - place)
    return position, document
