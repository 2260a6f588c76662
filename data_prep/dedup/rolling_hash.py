"""Hashes of every n consecutive numbers, at a cost that does not depend on n."""

import functools

import numpy as np
import numpy.typing as npt

from data_prep.counter_rng import UInt64Array, hash64, key_of

# Any odd number has an inverse modulo 2^64.
_BASE = int(key_of("ngram")) | 1
_INVERSE = pow(_BASE, -1, 1 << 64)
_FINAL = key_of("ngram", "final")
# Tables have powers of two entries, so that short inputs share a few of them.
_SMALLEST_TABLE = 1 << 10


def hash_ngrams(numbers: npt.ArrayLike, n: int) -> UInt64Array:
    """Return a 64-bit hash of each window of n numbers; entry i is of `numbers[i : i + n]`.

    The polynomial hash of Karp and Rabin ("Efficient randomized pattern-matching algorithms",
    IBM Journal of Research and Development, 1987) modulo 2^64, taken from a running sum, and
    then mixed, so that every bit depends on every number. Equal windows have equal hashes on
    every machine; two different ones of natural text have equal hashes once in 2^64.

    Args:
        numbers: shape (N,), integers from 0 below 2^64.
        n: at least 1.

    Returns:
        Shape (max(0, N - n + 1),).
    """
    values = np.asarray(numbers).astype(np.uint64)
    if len(values) < n:
        return np.empty(0, np.uint64)
    powers, inverses = _powers(1 << (max(len(values), _SMALLEST_TABLE) - 1).bit_length())
    # sums[i] = x_0 + x_1 / B + ... + x_(i-1) / B^(i-1), all modulo 2^64.
    sums = np.zeros(len(values) + 1, np.uint64)
    np.multiply(values, inverses[: len(values)], out=values)
    np.cumsum(values, out=sums[1:])
    windows = sums[n:] - sums[:-n]
    windows *= powers[: len(windows)]
    return hash64(_FINAL, windows)


@functools.lru_cache(maxsize=4)
def _powers(size: int) -> tuple[UInt64Array, UInt64Array]:
    """Return B^i and B^-i for i below size, modulo 2^64."""
    tables = []
    for base in (_BASE, _INVERSE):
        table = np.full(size, base, np.uint64)
        table[0] = 1
        tables.append(np.cumprod(table, dtype=np.uint64))
    return tables[0], tables[1]
