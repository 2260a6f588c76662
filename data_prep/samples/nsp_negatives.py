"""Partners: stretches of other documents, for the B of an unrelated pair.

A partner takes after the B that it replaces: as long as that and, where that ended with a
sentence, ending with one too, so that neither the length of a sample nor its last word gives the
label away.
"""

import numpy as np

from data_prep.corpus.shards import Int64Array, Shard
from data_prep.counter_rng import integers_below

_TRIES = 4  # places looked at for each, so that whole sentences fit its length


def draw_nsp_negatives(
    shard: Shard,
    own: Int64Array,
    model: Int64Array,
    room: Int64Array,
    key: np.uint64,
    counters: Int64Array,
) -> tuple[Int64Array, Int64Array]:
    """Return (start, length) of stretches outside each sample's own document.

    Of a few places drawn for each, the one is taken where the length comes out best.

    Args:
        shard: where they come from.
        own: the document of that shard that each must keep away from; -1 for none, [N].
        model: the length of each, and 1 if it should end where a sentence ends, [2, N].
        room: the longest that each may be, [N].
        key, counters: decide where each lies.
    """
    sentences = shard.sentences.astype(np.int64)
    bounds = sentences[shard.documents.astype(np.int64)]
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
    return shard.token_base + start, stop - start


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
