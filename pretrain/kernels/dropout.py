"""Keyed dropout: the mask of a row is a pure function of its key and the index of each element.

There is no generator: under activation checkpointing the second forward pass drops the same
elements, and so do another kernel, another device, and another micro-batch with the same row. Each
index within the row is a counter that is multiplied by a constant, combined with a first number
from the row's key, hashed by a 32-bit mixer found by exhaustive search (C. Wellons, "hash
prospector", shifts 16, 15 and 15), and multiplied by a second number from the key. A key for each
row, instead of one with counters that go on from row to row, leaves no limit of 2^32 elements for a
global batch.

Each product costs one operation where a second round of the mixer costs eleven. Without the first,
elements 768 apart are correlated by half a percent; without the second, the mask of one key is a
permutation of that of another.
Shapes: B rows of a micro-batch.
"""

import torch

# Signed 32-bit numbers, because torch has no unsigned arithmetic; products wrap around alike.
FACTORS = (0x21F0AAAD, 0xD35A2D97 - 2**32)
SHIFTS = (16, 15, 15)
SPREAD = 0x9E3779B9 - 2**32  # 2^32 divided by the golden ratio: separates neighbouring keys
_LOWEST, _HIGHEST = -(2**31), 2**31 - 1


def keyed_dropout(x: torch.Tensor, rate: float, keys_B2: torch.Tensor | None) -> torch.Tensor:
    """Return `x` with a fraction `rate` of its elements 0 and the others divided by `1 - rate`.

    Args:
        x: any shape, contiguous; B rows of equally many elements, fewer than 2^32 each.
        rate: probability that an element is dropped, in [0, 1).
        keys_B2: int32 on the device of `x`, the key of each row; None drops nothing, as in
            evaluation.
    """
    if keys_B2 is None or not rate:
        return x
    mask = keep_mask(x.numel() // len(keys_B2), rate, keys_B2)
    return torch.where(mask.view(x.shape), x / (1.0 - rate), 0.0)


def keep_mask(count: int, rate: float, keys_B2: torch.Tensor) -> torch.Tensor:
    """Return which of the `count` elements of each row are kept, bool [B, count].

    Any two int32 numbers are a key.
    """
    origin_B1, factor_B1 = _from_keys(keys_B2)
    # Counters start at the lowest int32, so that 2^32 fit into 32 bits; here as the inverse of a
    # range down from the highest. Inductor folds sums and products of a range into exact index
    # expressions, in which the products by SPREAD would exceed 32 bits: the inversion stops that.
    counters = torch.arange(
        _HIGHEST, _HIGHEST - count, -1, dtype=torch.int32, device=keys_B2.device
    )
    counters.bitwise_not_()
    counters *= SPREAD
    hashed = _mixed(counters ^ origin_B1)
    hashed *= factor_B1
    return hashed >= threshold(rate)


def threshold(rate: float) -> int:
    """Return the smallest hash of a kept element, a signed 32-bit number."""
    return min(_LOWEST + round(rate * 2**32), _HIGHEST)


def _from_keys(keys_B2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers that combine with a counter before and after mixing, each [B, 1].

    The second is odd.
    """
    first, second = keys_B2[:, :1], keys_B2[:, 1:]
    origin = _mixed(first + second * SPREAD)
    return origin, ((origin ^ second) * SPREAD) | 1


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """Mix in place: on a CPU that takes less than half the time of new tensors."""
    x ^= _shifted(x, SHIFTS[0])
    x *= FACTORS[0]
    x ^= _shifted(x, SHIFTS[1])
    x *= FACTORS[1]
    x ^= _shifted(x, SHIFTS[2])
    return x


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right and fill with zeros; torch fills with the sign."""
    x = x >> bits
    x &= (1 << (32 - bits)) - 1
    return x
