"""Bias and GELU as Triton kernels; see `pretrain.kernels.bias_gelu`.

Only the inputs are saved for the backward pass. The derivative is Φ(z) + z · φ(z).
Shapes: N tokens, F width.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from pretrain.kernels.triton.tile import (
    STRIPE,
    load_columns,
    store_sums,
    tile_indices,
    tile_of,
)

_MOST_COLUMNS = 1024  # elementwise: a tile needs no whole rows
_SQRT_HALF = tl.constexpr(math.sqrt(0.5))
_DENSITY_AT_0 = tl.constexpr(1.0 / math.sqrt(2.0 * math.pi))


def bias_gelu(x_NF: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
    """Return gelu(x + bias), [N, F]; fp32 inside, the result in the type of `x_NF`."""
    y_NF: torch.Tensor = _BiasGelu.apply(x_NF.contiguous(), bias_F.contiguous())
    return y_NF


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NF: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x_NF, bias_F)
        y_NF = torch.empty_like(x_NF)
        rows, width = x_NF.numel() // bias_F.numel(), bias_F.numel()
        tile = tile_of(width, _MOST_COLUMNS)
        grid = (triton.cdiv(rows, tile.rows), triton.cdiv(width, tile.columns))
        _forward[grid](
            x_NF, bias_F, y_NF, rows, width, tile.rows, tile.columns, num_warps=tile.warps
        )
        return y_NF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x_NF, bias_F = ctx.saved_tensors
        grad_x_NF = torch.empty_like(x_NF)
        rows, width = x_NF.numel() // bias_F.numel(), bias_F.numel()
        tile = tile_of(width, _MOST_COLUMNS)
        grid = (triton.cdiv(rows, STRIPE), triton.cdiv(width, tile.columns))
        sums_SF = torch.empty(grid[0], width, dtype=torch.float32, device=x_NF.device)
        _backward[grid](
            grad_NF.contiguous(),
            x_NF,
            bias_F,
            grad_x_NF,
            sums_SF,
            rows,
            width,
            STRIPE,
            tile.rows,
            tile.columns,
            num_warps=tile.warps,
        )
        return grad_x_NF, sums_SF.sum(0).to(bias_F.dtype)


@triton.jit
def _forward(x_ptr, bias_ptr, y_ptr, N, F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    _rows, columns, offsets, inside = tile_indices(
        tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS, N, F, ROWS, COLUMNS
    )
    x = tl.load(x_ptr + offsets, inside, other=0.0).to(tl.float32)
    z = x + load_columns(bias_ptr, columns, F)
    tl.store(y_ptr + offsets, z * _normal_cdf(z), inside)


@triton.jit
def _backward(
    grad_ptr,
    x_ptr,
    bias_ptr,
    grad_x_ptr,
    sums_ptr,
    N,
    F: tl.constexpr,
    STRIPE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    summed = tl.zeros((ROWS, COLUMNS), tl.float32)
    for row in range(0, STRIPE, ROWS):
        _rows, columns, offsets, inside = tile_indices(
            tl.program_id(0) * STRIPE + row, tl.program_id(1) * COLUMNS, N, F, ROWS, COLUMNS
        )
        x = tl.load(x_ptr + offsets, inside, other=0.0).to(tl.float32)
        z = x + load_columns(bias_ptr, columns, F)
        density = tl.exp(-0.5 * z * z) * _DENSITY_AT_0
        grad = tl.load(grad_ptr + offsets, inside, other=0.0).to(tl.float32)
        grad_x = grad * (_normal_cdf(z) + z * density)
        tl.store(grad_x_ptr + offsets, grad_x, inside)
        summed += grad_x
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    store_sums(sums_ptr, 0, summed, columns, F)


@triton.jit
def _normal_cdf(z):
    return 0.5 * (1.0 + tl.erf(z * _SQRT_HALF))
