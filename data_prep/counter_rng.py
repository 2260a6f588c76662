"""Counter-based random numbers: each depends on a key and a counter, never on earlier draws.

A sample's mask, its NSP negative and its position in the epoch are therefore the same at any number
of ranks, workers and restarts, and no generator state has to be saved.
"""

import hashlib

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]

# Constants of the SplitMix64 finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom
# number generators", OOPSLA 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key_of(*parts: int | str) -> np.uint64:
    """Return a 64-bit key for a purpose, such as `key_of("mask", seed, epoch)`."""
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def hash64(key: np.uint64, counters: npt.ArrayLike) -> UInt64Array:
    """Return 64 random bits for each counter: SplitMix64 at position `counter` of stream `key`."""
    with np.errstate(over="ignore"):
        bits = np.array(counters, dtype=np.uint64)
        bits *= _GOLDEN
        bits += key
        bits ^= bits >> np.uint64(30)
        bits *= _MIX_1
        bits ^= bits >> np.uint64(27)
        bits *= _MIX_2
        bits ^= bits >> np.uint64(31)
    return bits


def uniform(key: np.uint64, counters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return one float in [0, 1) for each counter, from the upper 53 of its 64 bits."""
    return (hash64(key, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers_below(
    key: np.uint64, counters: npt.ArrayLike, limits: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Return one integer in [0, limit) for each counter; limits are at least 1, below 2^53."""
    drawn = (uniform(key, counters) * np.asarray(limits, dtype=np.float64)).astype(np.int64)
    return np.minimum(drawn, np.asarray(limits, dtype=np.int64) - 1)


class Permutation:
    """A keyed bijection of `range(size)` that needs no table: a Feistel network.

    Values outside the range are enciphered again until they fall inside ("cycle walking", Black
    and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), so any size works.
    """

    _ROUNDS = 4

    def __init__(self, key: np.uint64, size: int) -> None:
        self.size = size
        self._half_bits = np.uint64(max(1, ((max(size, 2) - 1).bit_length() + 1) // 2))
        self._half_mask = (np.uint64(1) << self._half_bits) - np.uint64(1)
        self._round_keys = hash64(key, np.arange(self._ROUNDS))

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the image of each position in [0, size)."""
        # The cycle of a position outside may never enter the range.
        if np.any(np.asarray(positions) >= self.size) or np.any(np.asarray(positions) < 0):
            raise IndexError(f"a position is outside [0, {self.size})")
        values = self._encipher(np.asarray(positions, dtype=np.uint64).reshape(-1))
        while (outside := np.flatnonzero(values >= np.uint64(self.size))).size:
            values[outside] = self._encipher(values[outside])
        return values.astype(np.int64).reshape(np.shape(positions))

    def _encipher(self, values: UInt64Array) -> UInt64Array:
        left, right = values >> self._half_bits, values & self._half_mask
        for round_key in self._round_keys:
            left, right = right, left ^ (hash64(round_key, right) & self._half_mask)
        return (left << self._half_bits) | right
