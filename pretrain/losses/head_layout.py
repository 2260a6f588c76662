"""Heads of packed rows: queries, keys and values as the objectives on attention see them.

Shapes: N places, B rows of T places, D width, A heads, d = D/A their width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from data_prep.errors import UserError


def head_width(width: int, heads: int, whose: str) -> int:
    """Return d.

    Raises:
        UserError: when the heads do not divide the width.
    """
    if heads < 1 or width % heads:
        raise UserError(
            f"The {whose}'s width {width} cannot be cut into {heads} heads of the same width: "
            f"choose a number of heads that divides {width}."
        )
    return width // heads


def heads_of_rows(
    x_ND: torch.Tensor, heads: int, ids_BT: torch.Tensor, rows: slice
) -> torch.Tensor:
    """Return some rows as [rows, A, T, d], in fp32, with 0 where no sample lies."""
    x = view_of_heads(x_ND, heads, ids_BT.shape[1])[rows]
    # In one step, for numbers in 16 bits: what comes after it then copies nothing.
    wide = x.to(torch.float32, memory_format=torch.contiguous_format)
    return torch.where(ids_BT[rows, None, :, None] > 0, wide, 0.0).contiguous()


def view_of_heads(x_ND: torch.Tensor, heads: int, row_tokens: int) -> torch.Tensor:
    """Return the same memory as [B, A, T, d]."""
    return x_ND.view(-1, row_tokens, heads, x_ND.shape[1] // heads).transpose(1, 2)


def spans(total: int, most: int) -> Iterator[slice]:
    """Cut `total` into as few spans as possible of at most `most`, shared out evenly."""
    pieces = -(-total // most)
    for piece in range(pieces):
        yield slice(total * piece // pieces, total * (piece + 1) // pieces)


@contextmanager
def exact_products(device: torch.device, factors: Sequence[torch.Tensor] = ()) -> Iterator[None]:
    """Let matrix products in fp32 keep what they are given, whatever the run has asked for.

    A GPU computes them an order of magnitude faster in TF32. Its 11 significant bits hold every
    number of bf16 and fp16, so it is taken where one factor of every product is such a number; what
    the other may lose, being neither, is the last 13 of its 24 bits.

    Args:
        device: where they are computed.
        factors: in the types in which they came; none when they are made of sums of such numbers.
    """
    narrow = len(factors) > 0 and all(x.dtype in (torch.bfloat16, torch.float16) for x in factors)
    before = torch.get_float32_matmul_precision()
    with torch.autocast(device.type, enabled=False):
        torch.set_float32_matmul_precision(
            "high" if narrow and device.type == "cuda" else "highest"
        )
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
