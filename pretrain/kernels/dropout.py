"""Keyed dropout: which elements are dropped follows from a key and their place alone.

No generator is involved: a forward pass that is computed again drops the same elements, and so do
another kernel and another device. Places are hashed, once with each half of the key, by a 32-bit
mixer that an exhaustive search found (C. Wellons, "hash prospector", shifts 16, 15 and 15).
"""

import torch

# As signed 32-bit numbers, because torch computes no unsigned ones; products wrap around alike.
_FACTORS = (0x21F0AAAD, 0xD35A2D97 - 2**32)
_SHIFTS = (16, 15, 15)
_SIGN = -(2**31)


def keyed_dropout(x: torch.Tensor, rate: float, key: torch.Tensor | None) -> torch.Tensor:
    """Return `x` with a share `rate` of its elements 0 and the others divided by `1 - rate`.

    Args:
        x: any shape, contiguous, of fewer than 2^32 elements.
        rate: chance of each element to be dropped, in [0, 1).
        key: int32 [2] on the device of `x`; None drops nothing, as in evaluation.
    """
    if key is None or not rate:
        return x
    return torch.where(keep_mask(x.numel(), rate, key).view(x.shape), x / (1.0 - rate), 0.0)


def keep_mask(count: int, rate: float, key: torch.Tensor) -> torch.Tensor:
    """Return which of `count` elements stay, bool [count]."""
    places = torch.arange(count, dtype=torch.int64, device=key.device).to(torch.int32)
    hashed = _mix(_mix(places ^ key[0]) ^ key[1])
    # Compared as unsigned numbers: flipping the sign bit keeps their order.
    return (hashed ^ _SIGN) >= threshold(rate) + _SIGN


def threshold(rate: float) -> int:
    """Return the smallest unsigned 32-bit hash that stays."""
    return min(round(rate * 2**32), 2**32 - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = x ^ _shift(x, _SHIFTS[0])
    x = x * _FACTORS[0]
    x = x ^ _shift(x, _SHIFTS[1])
    x = x * _FACTORS[1]
    return x ^ _shift(x, _SHIFTS[2])


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right and fill with zeros; torch fills with the sign."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)
