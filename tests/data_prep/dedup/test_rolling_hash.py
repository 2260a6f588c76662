"""Hashes of n-grams: those of a textbook in unbounded integers, and of nothing but the n-gram."""

import numpy as np
import pytest

from data_prep.counter_rng import hash64, integers_below, key_of
from data_prep.dedup.rolling_hash import _BASE, _FINAL, hash_ngrams


def draw(name: str, count: int, limit: int) -> list[int]:
    return integers_below(key_of("ngrams", name), range(count), limit).tolist()


@pytest.mark.parametrize("n", [1, 2, 5, 13, 64])
@pytest.mark.parametrize("kind", ["<u2", "<u4", "<i8", "<u8"])
def test_ngram_hash_matches_polynomial(n: int, kind: str) -> None:
    """The running sum gives the polynomial hash of each window."""
    numbers = np.array(draw("polynomial", 150, 60_000), kind)
    inverse = pow(_BASE, -1, 2**64)
    expected = [
        sum(int(x) * pow(inverse, place, 2**64) for place, x in enumerate(numbers[i : i + n]))
        % 2**64
        for i in range(150 - n + 1)
    ]
    assert np.array_equal(hash_ngrams(numbers, n), hash64(_FINAL, np.array(expected, np.uint64)))


def test_ngram_hash_ignores_position() -> None:
    """A window has the same hash at every position."""
    window = draw("window", 13, 30_000)
    positions = [0, 1, 1000, 1023, 1024, 5000]
    hashes = {int(hash_ngrams(draw("before", at, 30_000) + window, 13)[at]) for at in positions}
    assert len(hashes) == 1


def test_different_ngrams_hash_differently() -> None:
    """Different windows have different hashes."""
    # All windows over two and three letters: the poorest alphabets have the most structure.
    for letters, n in ((2, 16), (3, 10)):
        count = letters**n
        windows = np.stack(np.unravel_index(np.arange(count), (letters,) * n), axis=1)
        hashes = [hash_ngrams(row, n)[0] for row in windows[:: count // 2000]]
        assert len(set(hashes)) == len(windows[:: count // 2000])
    sequence = draw("sequence", 200_000, 30_000)
    assert len(np.unique(hash_ngrams(sequence, 5))) == 200_000 - 4


def test_ngram_hash_sees_order_and_zeros() -> None:
    """Order and zeros change the hash."""
    assert hash_ngrams([1, 2, 3], 3)[0] != hash_ngrams([3, 2, 1], 3)[0]
    assert hash_ngrams([0, 0, 7], 3)[0] != hash_ngrams([0, 7, 0], 3)[0]


def test_short_input_has_no_ngrams() -> None:
    """Fewer than n numbers give no hash."""
    assert [len(hash_ngrams(range(count), 3)) for count in (0, 1, 2, 3, 4)] == [0, 0, 0, 1, 2]
