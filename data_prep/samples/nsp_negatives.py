"""NSP negatives: segments of other documents, for the B of a pair that is not true.

A negative is as long as the B that it replaces and, where that ended with a sentence, ends with
one too, so that neither the length of a sample nor its last token gives the label away.
"""

import numpy as np

from data_prep.corpus.shards import Int64Array, Shard
from data_prep.counter_rng import integers_below

_CANDIDATES = 4  # positions drawn for each negative, so that whole sentences fit its length


def draw_nsp_negatives(
    shard: Shard,
    own: Int64Array,
    template: Int64Array,
    max_length: Int64Array,
    key: np.uint64,
    counters: Int64Array,
) -> tuple[Int64Array, Int64Array]:
    """Return (start, length) of segments outside each sample's own document, [N] each.

    Of the candidates drawn for each, the one whose length is closest to the template is taken.

    Args:
        shard: where they come from.
        own: the document of that shard that each must not come from; -1 for none, [N].
        template: the length of each, and 1 if it should end where a sentence ends, [2, N].
        max_length: the longest that each may be, [N].
        key: of the draws.
        counters: of the draws, [N].
    """
    sentences = shard.sentences.astype(np.int64)
    bounds = sentences[shard.documents.astype(np.int64)]
    target, ends_sentence = template[:, :, None]
    draws = counters[:, None] * _CANDIDATES + np.arange(_CANDIDATES)
    position, document = _draw_positions(bounds, own[:, None], target, key, draws)

    # Back far enough that the length fits into the document, then to the start of a sentence.
    latest = np.maximum(bounds[document], bounds[document + 1] - target)
    position = np.minimum(position, latest)
    start = sentences[np.searchsorted(sentences, position, side="right") - 1]
    stop = np.minimum(start + target, bounds[document + 1])

    before = sentences[np.searchsorted(sentences, stop, side="right") - 1]
    after = sentences[np.searchsorted(sentences, stop, side="left")]
    nearer = (after - stop < stop - before) | (before == start)
    boundary = np.where(nearer & (after - start <= max_length[:, None]), after, before)
    stop = np.where(ends_sentence.astype(bool) & (boundary > start), boundary, stop)

    best = np.abs(stop - start - target).argmin(axis=1)
    each = np.arange(len(counters))
    start, stop = start[each, best], stop[each, best]
    return shard.token_base + start, stop - start


def _draw_positions(
    bounds: Int64Array, own: Int64Array, target: Int64Array, key: np.uint64, counters: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return a token position and its document, uniform over the tokens of other documents.

    Documents shorter than the target are left out, unless there are no others. With the documents
    ordered from the longest to the shortest this is a draw below a limit.
    """
    lengths = np.diff(bounds)
    by_length = np.argsort(-lengths, kind="stable")
    ends: Int64Array = np.cumsum(lengths[by_length])
    # The rank of the own document in that order; "none" comes after all, and has no tokens.
    rank = np.append(np.argsort(by_length), len(lengths))[own]
    own_length = np.append(lengths, 0)[own]
    own_start = np.append(ends, ends[-1])[rank] - own_length

    count = np.searchsorted(-lengths[by_length], -target, side="right")
    count = np.where(count > (rank < count), count, len(lengths))
    limit = ends[count - 1] - np.where(rank < count, own_length, 0)
    offset = integers_below(key, counters, limit)
    offset += np.where(offset >= own_start, own_length, 0)
    nth = np.searchsorted(ends, offset, side="right")
    document: Int64Array = by_length[nth]
    position: Int64Array = bounds[document + 1] - (ends[nth] - offset)
    return position, document
