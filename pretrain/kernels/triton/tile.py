"""Tiles: the part of an [N, D] tensor that a Triton program holds at a time.

A tile has whole rows wherever a row fits, so that a LayerNorm needs one program. A *stripe* is the
rows over which one program of a backward pass iterates, tile by tile, while it sums their columns.
The sums of the stripes are added afterwards in a fixed order, without atomic additions, so they are
the same bits in every run. The sizes are untuned until they are measured on a GPU.
"""

from typing import NamedTuple

import triton
import triton.language as tl

STRIPE = 32  # rows; a constant, so that sums do not depend on the GPU either
_ELEMENTS = 2048  # of a tile; wider rows are a tile each
_ELEMENTS_PER_WARP = 256  # 8 a thread: one load of 16 bytes in bf16


class Tile(NamedTuple):
    """The shape of a tile, each side a power of 2, and its number of warps."""

    rows: int
    columns: int
    warps: int


def tile_of(width: int, most_columns: int | None = None) -> Tile:
    """Return the tile for rows of `width` elements; `most_columns` allows to split a row."""
    columns = triton.next_power_of_2(width)
    if most_columns is not None:
        columns = min(columns, most_columns)
    rows = min(max(_ELEMENTS // columns, 1), STRIPE)
    return Tile(rows, columns, warps=min(max(rows * columns // _ELEMENTS_PER_WARP, 1), 32))


@triton.jit
def tile_indices(
    first_row, first_column, N, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Return a tile's row and column indices, its offsets into [N, D], and which are inside."""
    rows = first_row + tl.arange(0, ROWS)
    columns = first_column + tl.arange(0, COLUMNS)
    # 64 bits: N times D can exceed 2^31.
    offsets = rows.to(tl.int64)[:, None] * D + columns[None, :]
    return rows, columns, offsets, (rows < N)[:, None] & (columns < D)[None, :]


@triton.jit
def load_columns(vector_ptr, columns, D: tl.constexpr):
    """Return the tile's part of a [D] vector, fp32 [1, COLUMNS]."""
    return tl.load(vector_ptr + columns, columns < D, other=0.0).to(tl.float32)[None, :]


@triton.jit
def store_sums(sums_ptr, which: tl.constexpr, summed, columns, D: tl.constexpr):
    """Store the column sums of this program's stripe into [kinds, stripes, D]."""
    stripe = which * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums_ptr + stripe * D + columns, tl.sum(summed, axis=0), columns < D)
