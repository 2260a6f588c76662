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


def dropping(rate: float, keys_B2: torch.Tensor | None, tokens: int) -> dict[str, Any]:
    """Return the keyword arguments of every kernel with dropout, for `tokens` in B rows."""
    if keys_B2 is None:
        return {"keys_ptr": None, "ROW_TOKENS": 1, "THRESHOLD": threshold(0.0)}
    row_tokens = max(tokens // len(keys_B2), 1)
    return {"keys_ptr": keys_B2, "ROW_TOKENS": row_tokens, "THRESHOLD": threshold(rate)}


@triton.jit
def drop(
    x,
    tokens,
    columns,
    N,
    keys_ptr,
    D: tl.constexpr,
    ROW_TOKENS: tl.constexpr,
    THRESHOLD: tl.constexpr,
):
    """Return a tile of `x` after dropout; `tokens` and `columns` are its indices in [N, D]."""
    if THRESHOLD > _LOWEST:
        keep = _keep(tokens, columns, N, keys_ptr, D, ROW_TOKENS, THRESHOLD)
        return tl.where(keep, x * (_HASHES / (_HIGHEST - THRESHOLD)), 0.0)
    else:
        return x


@triton.jit
def _keep(
    tokens,
    columns,
    N,
    keys_ptr,
    D: tl.constexpr,
    ROW_TOKENS: tl.constexpr,
    THRESHOLD: tl.constexpr,
):
    keys = keys_ptr + 2 * (tokens // ROW_TOKENS)
    first = tl.load(keys, tokens < N, other=0).to(tl.uint32, bitcast=True)
    second = tl.load(keys + 1, tokens < N, other=0).to(tl.uint32, bitcast=True)
    origin = _mix(first + second * _SPREAD)
    factor = ((origin ^ second) * _SPREAD) | 1
    elements = ((tokens % ROW_TOKENS) * D)[:, None] + columns[None, :]
    counters = elements.to(tl.uint32) ^ _SIGN  # counted from the lowest signed number
    hashed = _mix((counters * _SPREAD) ^ origin[:, None]) * factor[:, None]
    return hashed.to(tl.int32, bitcast=True) >= THRESHOLD


@triton.jit
def _mix(x):
    x = (x ^ (x >> _SHIFT_0)) * _FACTOR_0
    x = (x ^ (x >> _SHIFT_1)) * _FACTOR_1
    return x ^ (x >> _SHIFT_2)
