"""Packing: lay samples of different lengths into rows of one length, with little padding."""

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import hash64

_MOST_LOOSE_ROWS = 2048
_TIGHT_FILL = 0.98  # a row as full as this leaves no more padding than we aim at


def pack(lengths: Int64Array, capacity: int, key: np.uint64) -> tuple[Int64Array, Int64Array]:
    """Pack samples into rows by best fit, longest first.

    Args:
        lengths: tokens of each sample, at most `capacity`.
        capacity: tokens of a row.
        key: decides which of several equally long samples comes first.

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


def choose_loose(
    fills: Int64Array, capacity: int, most: int = _MOST_LOOSE_ROWS
) -> npt.NDArray[np.bool_]:
    """Mark the rows whose samples are better packed again, together with those of the next block.

    These are the emptiest, at most `most`, so that what is carried from block to block stays
    small even where nothing fits together.

    Args:
        fills: tokens in each row.
        capacity: tokens of a row.
        most: how many rows may be marked.
    """
    emptiest = np.argsort(fills, kind="stable")[:most]
    loose = np.zeros(len(fills), bool)
    loose[emptiest] = fills[emptiest] < capacity * _TIGHT_FILL
    return loose


def padding_share(lengths: npt.NDArray[np.integer], num_rows: int, capacity: int) -> float:
    """Return the share of token places in the rows that no sample fills."""
    return 1.0 - float(lengths.sum()) / max(1, num_rows * capacity)


def _best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Return the row of each sample: always the open row with the least room that suffices.

    `with_room[r]` lists the rows with exactly r free places, and bit r of `rooms` says that
    there is one, so that the best fit is found by a shift and a lowest set bit.
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
