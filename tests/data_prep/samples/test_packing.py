"""Packing: every sample once, no row overfull, little padding."""

import numpy as np
import numpy.typing as npt
import pytest

from data_prep.counter_rng import integers_below, key_of
from data_prep.samples.packing import pack, underfull_rows
from tests.synthetic_corpora import draw_shards

KEY = key_of("pack")
Int64Array = npt.NDArray[np.int64]


def segment_lengths(capacity: int, documents: int) -> Int64Array:
    """Return the lengths of full rows and of the tails that documents leave."""
    (shard,) = draw_shards("packing", (documents,))
    totals = np.array([sum(document) for document in shard])
    tails = totals % (capacity - 3)
    full = np.full(int((totals // (capacity - 3)).sum()), capacity)
    return np.concatenate([full, 3 + tails[tails > 0]]).astype(np.int64)


def fills(lengths: Int64Array, capacity: int, key: np.uint64 = KEY) -> list[int]:
    """Return the tokens in each row, after checking that rows hold every sample once."""
    order, offsets = pack(lengths, capacity, key)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert offsets[0] == 0 and offsets[-1] == len(lengths) and (np.diff(offsets) > 0).all()
    rows = np.split(lengths[order], offsets[1:-1])
    return [int(row.sum()) for row in rows] if len(lengths) else []


def naive_fills(lengths: list[int], capacity: int) -> list[int]:
    """Return the tokens in each row by a plain best fit."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in range(len(rows)) if rows[row] + length <= capacity]
        if fitting:
            rows[max(fitting, key=lambda row: rows[row])] += length
        else:
            rows.append(length)
    return rows


@pytest.mark.parametrize("trial", range(60))
def test_packing_is_best_fit(trial: int) -> None:
    """Packing equals a plain best fit."""
    capacity = 5 + trial
    count = trial % 25
    lengths = 1 + integers_below(key_of("small", trial), np.arange(count), capacity)
    found = fills(lengths, capacity, key_of(trial))
    assert sorted(found) == sorted(naive_fills(lengths.tolist(), capacity))


@pytest.mark.parametrize("capacity", [128, 512])
def test_packing_leaves_two_percent_padding(capacity: int) -> None:
    """At most 2 % of the positions are padding."""
    lengths = segment_lengths(capacity, documents=2000)
    rows = fills(lengths, capacity)
    assert max(rows) <= capacity
    share = 1 - sum(rows) / (len(rows) * capacity)
    assert share <= 0.02


def test_full_length_samples_fill_rows() -> None:
    """Samples as long as a row have a row each."""
    assert fills(np.full(7, 128, np.int64), 128) == [128] * 7


def test_packing_key_orders_equal_lengths() -> None:
    """The key decides the order of samples of equal length."""
    lengths = np.full(100, 10, np.int64)
    first, again, other = (pack(lengths, 20, key_of(key))[0].tolist() for key in "aab")
    assert first == again and first != other


def test_packing_nothing_gives_no_rows() -> None:
    """No samples give no rows."""
    order, offsets = pack(np.zeros(0, np.int64), 128, KEY)
    assert order.tolist() == [] and offsets.tolist() == [0]


def test_underfull_rows_are_emptiest() -> None:
    """The underfull rows are the emptiest, and at most the limit."""
    fills = np.array([100, 40, 98, 97, 99, 3, 60], np.int64)
    assert np.flatnonzero(underfull_rows(fills, 100)).tolist() == [1, 3, 5, 6]
    assert np.flatnonzero(underfull_rows(fills, 100, limit=2)).tolist() == [1, 5]
    assert not underfull_rows(np.full(9, 100), 100).any()
    assert not underfull_rows(np.zeros(0, np.int64), 100).any()
