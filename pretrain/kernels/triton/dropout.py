"""Keyed dropout inside a Triton kernel: the elements that `pretrain.kernels.dropout` drops."""

from typing import Any

import torch
import triton
import triton.language as tl

from pretrain.kernels.dropout import FACTORS, SHIFTS, SPREAD, threshold

# Unsigned here, so that shifts fill with zeros. Triton's functions accept no other globals.
_FACTOR_0 = tl.constexpr(FACTORS[0] % 2**32)
_FACTOR_1 = tl.constexpr(FACTORS[1] % 2**32)
_SHIFT_0 = tl.constexpr(SHIFTS[0])
_SHIFT_1 = tl.constexpr(SHIFTS[1])
_SHIFT_2 = tl.constexpr(SHIFTS[2])
_SPREAD = tl.constexpr(SPREAD % 2**32)
_SIGN = tl.constexpr(2**31)
_LOWEST = tl.constexpr(threshold(0.0))  # without dropout
_HASHES = tl.constexpr(2.0**32)
_HIGHEST = tl.constexpr(2.0**31)


def dropping(rate: float, key: torch.Tensor | None) -> dict[str, Any]:
    """Return the keyword arguments of every kernel with dropout."""
    return {"key_ptr": key, "THRESHOLD": threshold(0.0 if key is None else rate)}


@triton.jit
def drop(x, elements, key_ptr, THRESHOLD: tl.constexpr):
    """Return `x` after dropout; `elements` are its flat indices in the whole tensor."""
    if THRESHOLD > _LOWEST:
        keep = _keep(elements, key_ptr, THRESHOLD)
        return tl.where(keep, x * (_HASHES / (_HIGHEST - THRESHOLD)), 0.0)
    else:
        return x


@triton.jit
def _keep(elements, key_ptr, THRESHOLD: tl.constexpr):
    first = tl.load(key_ptr).to(tl.uint32, bitcast=True)
    second = tl.load(key_ptr + 1).to(tl.uint32, bitcast=True)
    origin = _mix(first + second * _SPREAD)
    factor = ((origin ^ second) * _SPREAD) | 1
    counters = elements.to(tl.uint32) ^ _SIGN  # counted from the lowest signed number
    hashed = _mix((counters * _SPREAD) ^ origin) * factor
    return hashed.to(tl.int32, bitcast=True) >= THRESHOLD


@triton.jit
def _mix(x):
    x = (x ^ (x >> _SHIFT_0)) * _FACTOR_0
    x = (x ^ (x >> _SHIFT_1)) * _FACTOR_1
    return x ^ (x >> _SHIFT_2)
