"""Packing: put samples of different lengths into rows of one length, with little padding."""

import numpy as np

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import hash64
from data_prep.samples.segments import BoolArray

_MAX_UNDERFULL_ROWS = 2048
_FULL_SHARE = 0.98  # a row filled to this share has no more padding than packing aims at


def pack(lengths: Int64Array, capacity: int, key: np.uint64) -> tuple[Int64Array, Int64Array]:
    """Pack samples into rows by best fit, longest first.

    Args:
        lengths: tokens of each sample, at most `capacity`.
        capacity: tokens of a row.
        key: of the draw that orders samples of equal length.

    Returns:
        `order`, the samples in row order, and `offsets`, one entry more than there are rows:
        row i holds samples `order[offsets[i] : offsets[i + 1]]`.
    """
    shuffled = np.argsort(hash64(key, np.arange(len(lengths))), kind="stable")
    longest_first = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    rows = np.array(_best_fit(lengths[longest_first].tolist(), capacity), np.int64)
    by_row = np.argsort(rows, kind="stable")
    counts = np.bincount(rows) if len(rows) else np.zeros(0, np.int64)
    return longest_first[by_row], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def underfull_rows(fills: Int64Array, capacity: int, limit: int = _MAX_UNDERFULL_ROWS) -> BoolArray:
    """Return a mask of the rows whose samples are packed again with those of the next block.

    These are the emptiest, at most `limit`, so that what is carried from block to block stays
    small even where nothing fits together.

    Args:
        fills: tokens in each row, [rows].
        capacity: tokens of a row.
        limit: how many rows may be chosen.
    """
    emptiest = np.argsort(fills, kind="stable")[:limit]
    underfull = np.zeros(len(fills), bool)
    underfull[emptiest] = fills[emptiest] < capacity * _FULL_SHARE
    return underfull


def _best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Return the row of each sample: always the open row with the least room that suffices.

    `with_room[r]` lists the rows with exactly r free tokens, and bit r of `rooms` is set where the
    list is not empty, so that the best fit is found by a shift and a lowest set bit.
    """
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms, opened, rows = 0, 0, []
    for length in lengths:
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, opened
            opened += 1
        rows.append(row)
        left = room - length
        if left:
            with_room[left].append(row)
            rooms |= 1 << left
    return rows
