"""Views of packed rows by attention head, and exact fp32 matrix products for the attention losses.

Shapes: N positions, B rows of T positions, D width, A heads, d = D/A their width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from data_prep.errors import UserError


class QueryKey(NamedTuple):
    """Queries and keys of one layer of a model; both may be the same tensor."""

    query_ND: torch.Tensor
    key_ND: torch.Tensor


def head_width(width: int, heads: int, name: str) -> int:
    """Return d.

    Args:
        width: D.
        heads: A.
        name: of the model, for the error message.

    Raises:
        UserError: when the heads do not divide the width.
    """
    if heads < 1 or width % heads:
        raise UserError(
            f"The {name}'s width {width} cannot be cut into {heads} heads of the same width: "
            f"choose a number of heads that divides {width}."
        )
    return width // heads


def heads_of_rows(
    x_ND: torch.Tensor, heads: int, ids_BT: torch.Tensor, rows: slice
) -> torch.Tensor:
    """Return some rows as [rows, A, T, d], in fp32, with padding set to 0."""
    x = view_of_heads(x_ND, heads, ids_BT.shape[1])[rows]
    # Cast and copy in one step for 16-bit types: the operations after it then copy nothing.
    wide = x.to(torch.float32, memory_format=torch.contiguous_format)
    return torch.where(ids_BT[rows, None, :, None] > 0, wide, 0.0).contiguous()


def view_of_heads(x_ND: torch.Tensor, heads: int, row_tokens: int) -> torch.Tensor:
    """Return a view of the same memory as [B, A, T, d]."""
    return x_ND.view(-1, row_tokens, heads, x_ND.shape[1] // heads).transpose(1, 2)


def even_slices(total: int, max_size: int) -> Iterator[slice]:
    """Cut `range(total)` into the fewest slices of at most `max_size`, of even sizes."""
    pieces = -(-total // max_size)
    for piece in range(pieces):
        yield slice(total * piece // pieces, total * (piece + 1) // pieces)


@contextmanager
def exact_products(device: torch.device, factors: Sequence[torch.Tensor] = ()) -> Iterator[None]:
    """Compute fp32 matrix products without loss of input digits, whatever the run's settings.

    A GPU computes them an order of magnitude faster in TF32, whose 11 significant bits hold every
    number of bf16 and fp16. So TF32 is used where one factor of every product is such a number; the
    other factor may lose the last 13 of its 24 bits.

    Args:
        device: that computes the products.
        factors: in the dtypes of the inputs; none when they are sums of such numbers.
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
