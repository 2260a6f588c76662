"""Bias, dropout, residual and LayerNorm as Triton kernels; see `pretrain.kernels.residual_norm`.

Shapes: N tokens in B rows, D width.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from pretrain.kernels.triton.dropout import drop, dropping
from pretrain.kernels.triton.layer_norm import input_gradient, moments
from pretrain.kernels.triton.tile import (
    STRIPE,
    load_columns,
    store_sums,
    tile_indices,
    tile_of,
)


def residual_norm(
    inner_ND: torch.Tensor,
    bias_D: torch.Tensor,
    residual_ND: torch.Tensor,
    weight_D: torch.Tensor,
    norm_bias_D: torch.Tensor,
    *,
    epsilon: float,
    rate: float,
    keys_B2: torch.Tensor | None,
) -> torch.Tensor:
    """Return LayerNorm(dropout(inner + bias) + residual), [N, D]; fp32 inside.

    The result has the type of `inner_ND`; the arguments are those of the reference.
    """
    y_ND: torch.Tensor = _ResidualNorm.apply(
        inner_ND.contiguous(),
        bias_D.contiguous(),
        residual_ND.contiguous(),
        weight_D.contiguous(),
        norm_bias_D.contiguous(),
        epsilon,
        rate,
        keys_B2,
    )
    return y_ND


class _ResidualNorm(torch.autograd.Function):
    """Saves its inputs and two numbers per row.

    The residual is saved anyway by the layers around it, so this costs one [N, D] tensor, `inner`.
    Saving the sum or the normalised row would cost as much, and a write and a rounding too.
    Recomputing the normalised row from the output, which is saved anyway, would cost no memory, but
    divides by weights that may be 0 and amplifies the rounding of the output.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inner_ND: torch.Tensor,
        bias_D: torch.Tensor,
        residual_ND: torch.Tensor,
        weight_D: torch.Tensor,
        norm_bias_D: torch.Tensor,
        epsilon: float,
        rate: float,
        keys_B2: torch.Tensor | None,
    ) -> torch.Tensor:
        width = weight_D.numel()
        rows = inner_ND.numel() // width
        tile = tile_of(width)
        y_ND = torch.empty_like(inner_ND)
        mean_N, scale_N = torch.empty(2, rows, dtype=torch.float32, device=inner_ND.device)
        _forward[(triton.cdiv(rows, tile.rows),)](
            inner_ND,
            bias_D,
            residual_ND,
            weight_D,
            norm_bias_D,
            y_ND,
            mean_N,
            scale_N,
            rows,
            epsilon,
            D=width,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.warps,
            **dropping(rate, keys_B2, rows),
        )
        ctx.save_for_backward(inner_ND, bias_D, residual_ND, weight_D, norm_bias_D, mean_N, scale_N)
        ctx.rate, ctx.keys_B2 = rate, keys_B2
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inner_ND, bias_D, residual_ND, weight_D, norm_bias_D, mean_N, scale_N = ctx.saved_tensors
        width = weight_D.numel()
        rows = inner_ND.numel() // width
        tile = tile_of(width)
        stripes = triton.cdiv(rows, STRIPE)
        grad_inner_ND, grad_residual_ND = torch.empty_like(inner_ND), torch.empty_like(residual_ND)
        sums_3SD = torch.empty(3, stripes, width, dtype=torch.float32, device=inner_ND.device)
        _backward[(stripes,)](
            grad_ND.contiguous(),
            inner_ND,
            bias_D,
            residual_ND,
            weight_D,
            mean_N,
            scale_N,
            grad_inner_ND,
            grad_residual_ND,
            sums_3SD,
            rows,
            D=width,
            STRIPE=STRIPE,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.warps,
            **dropping(ctx.rate, ctx.keys_B2, rows),
        )
        grad_bias_D, grad_weight_D, grad_norm_bias_D = sums_3SD.sum(1)
        return (
            grad_inner_ND,
            grad_bias_D.to(bias_D.dtype),
            grad_residual_ND,
            grad_weight_D.to(weight_D.dtype),
            grad_norm_bias_D.to(norm_bias_D.dtype),
            None,
            None,
            None,
        )


@triton.jit
def _summed(
    inner_ptr,
    bias_ptr,
    residual_ptr,
    rows,
    columns,
    offsets,
    inside,
    N,
    keys_ptr,
    D: tl.constexpr,
    ROW_TOKENS: tl.constexpr,
    THRESHOLD: tl.constexpr,
):
    """Return the input of the LayerNorm; 0 outside the tensor."""
    inner = tl.load(inner_ptr + offsets, inside, other=0.0).to(tl.float32)
    inner = tl.where(inside, inner + load_columns(bias_ptr, columns, D), 0.0)
    residual = tl.load(residual_ptr + offsets, inside, other=0.0).to(tl.float32)
    return drop(inner, rows, columns, N, keys_ptr, D, ROW_TOKENS, THRESHOLD) + residual


@triton.jit
def _forward(
    inner_ptr,
    bias_ptr,
    residual_ptr,
    weight_ptr,
    norm_bias_ptr,
    y_ptr,
    mean_ptr,
    scale_ptr,
    N,
    epsilon,
    keys_ptr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROW_TOKENS: tl.constexpr,
    THRESHOLD: tl.constexpr,
):
    rows, columns, offsets, inside = tile_indices(tl.program_id(0) * ROWS, 0, N, D, ROWS, COLUMNS)
    summed = _summed(
        inner_ptr,
        bias_ptr,
        residual_ptr,
        rows,
        columns,
        offsets,
        inside,
        N,
        keys_ptr,
        D,
        ROW_TOKENS,
        THRESHOLD,
    )
    mean, scale = moments(summed, inside, epsilon, D)
    y = (summed - mean) * scale * load_columns(weight_ptr, columns, D)
    tl.store(y_ptr + offsets, y + load_columns(norm_bias_ptr, columns, D), inside)
    tl.store(mean_ptr + rows[:, None], mean, (rows < N)[:, None])
    tl.store(scale_ptr + rows[:, None], scale, (rows < N)[:, None])


@triton.jit
def _backward(
    grad_ptr,
    inner_ptr,
    bias_ptr,
    residual_ptr,
    weight_ptr,
    mean_ptr,
    scale_ptr,
    grad_inner_ptr,
    grad_residual_ptr,
    sums_ptr,
    N,
    keys_ptr,
    D: tl.constexpr,
    STRIPE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROW_TOKENS: tl.constexpr,
    THRESHOLD: tl.constexpr,
):
    grad_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    grad_weight = tl.zeros((ROWS, COLUMNS), tl.float32)
    grad_norm_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    for row in range(0, STRIPE, ROWS):
        rows, columns, offsets, inside = tile_indices(
            tl.program_id(0) * STRIPE + row, 0, N, D, ROWS, COLUMNS
        )
        summed = _summed(
            inner_ptr,
            bias_ptr,
            residual_ptr,
            rows,
            columns,
            offsets,
            inside,
            N,
            keys_ptr,
            D,
            ROW_TOKENS,
            THRESHOLD,
        )
        mean = tl.load(mean_ptr + rows, rows < N, other=0.0)[:, None]
        scale = tl.load(scale_ptr + rows, rows < N, other=0.0)[:, None]
        normed = tl.where(inside, (summed - mean) * scale, 0.0)
        grad = tl.load(grad_ptr + offsets, inside, other=0.0).to(tl.float32)
        grad_norm_bias += grad
        grad_weight += grad * normed
        grad_summed = input_gradient(grad * load_columns(weight_ptr, columns, D), normed, scale, D)
        tl.store(grad_residual_ptr + offsets, grad_summed, inside)
        grad_inner = drop(grad_summed, rows, columns, N, keys_ptr, D, ROW_TOKENS, THRESHOLD)
        tl.store(grad_inner_ptr + offsets, grad_inner, inside)
        grad_bias += grad_inner
    columns = tl.arange(0, COLUMNS)
    store_sums(sums_ptr, 0, grad_bias, columns, D)
    store_sums(sums_ptr, 1, grad_weight, columns, D)
    store_sums(sums_ptr, 2, grad_norm_bias, columns, D)
