"""Embeddings, LayerNorm and dropout as Triton kernels; see `pretrain.kernels.embedding_norm`.

Shapes: N tokens in B rows, V vocabulary, P positions, D width.
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


def embedding_norm(
    input_ids_N: torch.Tensor,
    token_types_N: torch.Tensor,
    positions_N: torch.Tensor,
    word_VD: torch.Tensor,
    type_2D: torch.Tensor,
    position_PD: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    *,
    epsilon: float,
    rate: float,
    keys_B2: torch.Tensor | None,
) -> torch.Tensor:
    """Return dropout(LayerNorm(word + type + position)), [N, D]; fp32 inside.

    The result has the type of `word_VD`; the arguments are those of the reference. Ids are not
    checked: an id outside its table reads out of bounds.
    """
    y_ND: torch.Tensor = _EmbeddingNorm.apply(
        input_ids_N.contiguous(),
        token_types_N.contiguous(),
        positions_N.contiguous(),
        word_VD.contiguous(),
        type_2D.contiguous(),
        position_PD.contiguous(),
        weight_D.contiguous(),
        bias_D.contiguous(),
        epsilon,
        rate,
        keys_B2,
    )
    return y_ND


class _EmbeddingNorm(torch.autograd.Function):
    """Saves two numbers per row; the backward pass looks the embeddings up again."""

    @staticmethod
    def forward(
        ctx: Any,
        input_ids_N: torch.Tensor,
        token_types_N: torch.Tensor,
        positions_N: torch.Tensor,
        word_VD: torch.Tensor,
        type_2D: torch.Tensor,
        position_PD: torch.Tensor,
        weight_D: torch.Tensor,
        bias_D: torch.Tensor,
        epsilon: float,
        rate: float,
        keys_B2: torch.Tensor | None,
    ) -> torch.Tensor:
        looked_up = (input_ids_N, token_types_N, positions_N, word_VD, type_2D, position_PD)
        rows, width = input_ids_N.numel(), weight_D.numel()
        tile = tile_of(width)
        y_ND = torch.empty(*input_ids_N.shape, width, dtype=word_VD.dtype, device=word_VD.device)
        mean_N, scale_N = torch.empty(2, rows, dtype=torch.float32, device=word_VD.device)
        _forward[(triton.cdiv(rows, tile.rows),)](
            *looked_up,
            weight_D,
            bias_D,
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
        ctx.save_for_backward(*looked_up, weight_D, bias_D, mean_N, scale_N)
        ctx.rate, ctx.keys_B2 = rate, keys_B2
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *looked_up, weight_D, bias_D, mean_N, scale_N = ctx.saved_tensors
        input_ids_N, _, positions_N, word_VD, type_2D, position_PD = looked_up
        width = weight_D.numel()
        tile = tile_of(width)
        stripes = triton.cdiv(input_ids_N.numel(), STRIPE)
        grad_ND = grad_ND.contiguous()
        grad_summed_ND = torch.empty_like(grad_ND)
        sums_4SD = torch.empty(4, stripes, width, dtype=torch.float32, device=grad_ND.device)
        _backward[(stripes,)](
            grad_ND,
            *looked_up,
            weight_D,
            mean_N,
            scale_N,
            grad_summed_ND,
            sums_4SD,
            input_ids_N.numel(),
            D=width,
            STRIPE=STRIPE,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.warps,
            **dropping(ctx.rate, ctx.keys_B2, input_ids_N.numel()),
        )
        sums_4D = sums_4SD.sum(1)
        return (
            None,
            None,
            None,
            _table_gradient(grad_summed_ND, input_ids_N, word_VD),
            sums_4D[2:].to(type_2D.dtype),
            _table_gradient(grad_summed_ND, positions_N, position_PD),
            sums_4D[0].to(weight_D.dtype),
            sums_4D[1].to(bias_D.dtype),
            None,
            None,
            None,
        )


def _table_gradient(
    grad_ND: torch.Tensor, ids_N: torch.Tensor, table_VD: torch.Tensor
) -> torch.Tensor:
    """Sum the gradient rows of each id; on a GPU in fp32.

    There torch sorts the ids, so that the order is fixed; `index_add_` would use atomic additions.
    There is no device-to-host synchronisation.
    """
    rows, no_padding_id = len(table_VD), -1
    summed = torch.ops.aten.embedding_dense_backward(grad_ND, ids_N, rows, no_padding_id, False)
    return summed.to(table_VD.dtype)


@triton.jit
def _summed(
    ids_ptr,
    types_ptr,
    positions_ptr,
    word_ptr,
    type_ptr,
    position_ptr,
    rows,
    columns,
    inside,
    N,
    D: tl.constexpr,
):
    """Return the input of the LayerNorm; 0 outside the tensor."""
    word = _looked_up(word_ptr, ids_ptr, rows, columns, inside, N, D)
    token_type = _looked_up(type_ptr, types_ptr, rows, columns, inside, N, D)
    return word + token_type + _looked_up(position_ptr, positions_ptr, rows, columns, inside, N, D)


@triton.jit
def _looked_up(table_ptr, ids_ptr, rows, columns, inside, N, D: tl.constexpr):
    ids = tl.load(ids_ptr + rows, rows < N, other=0).to(tl.int64)
    offsets = ids[:, None] * D + columns[None, :]
    return tl.load(table_ptr + offsets, inside, other=0.0).to(tl.float32)


@triton.jit
def _forward(
    ids_ptr,
    types_ptr,
    positions_ptr,
    word_ptr,
    type_ptr,
    position_ptr,
    weight_ptr,
    bias_ptr,
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
        ids_ptr,
        types_ptr,
        positions_ptr,
        word_ptr,
        type_ptr,
        position_ptr,
        rows,
        columns,
        inside,
        N,
        D,
    )
    mean, scale = moments(summed, inside, epsilon, D)
    y = (summed - mean) * scale * load_columns(weight_ptr, columns, D)
    y += load_columns(bias_ptr, columns, D)
    y = drop(y, rows, columns, N, keys_ptr, D, ROW_TOKENS, THRESHOLD)
    tl.store(y_ptr + offsets, y, inside)
    tl.store(mean_ptr + rows[:, None], mean, (rows < N)[:, None])
    tl.store(scale_ptr + rows[:, None], scale, (rows < N)[:, None])


@triton.jit
def _backward(
    grad_ptr,
    ids_ptr,
    types_ptr,
    positions_ptr,
    word_ptr,
    type_ptr,
    position_ptr,
    weight_ptr,
    mean_ptr,
    scale_ptr,
    grad_summed_ptr,
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
    grad_weight = tl.zeros((ROWS, COLUMNS), tl.float32)
    grad_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    grad_type_0 = tl.zeros((ROWS, COLUMNS), tl.float32)
    grad_type_1 = tl.zeros((ROWS, COLUMNS), tl.float32)
    for row in range(0, STRIPE, ROWS):
        rows, columns, offsets, inside = tile_indices(
            tl.program_id(0) * STRIPE + row, 0, N, D, ROWS, COLUMNS
        )
        summed = _summed(
            ids_ptr,
            types_ptr,
            positions_ptr,
            word_ptr,
            type_ptr,
            position_ptr,
            rows,
            columns,
            inside,
            N,
            D,
        )
        mean = tl.load(mean_ptr + rows, rows < N, other=0.0)[:, None]
        scale = tl.load(scale_ptr + rows, rows < N, other=0.0)[:, None]
        normed = tl.where(inside, (summed - mean) * scale, 0.0)
        grad = tl.load(grad_ptr + offsets, inside, other=0.0).to(tl.float32)
        grad = drop(grad, rows, columns, N, keys_ptr, D, ROW_TOKENS, THRESHOLD)
        grad_bias += grad
        grad_weight += grad * normed
        grad_summed = input_gradient(grad * load_columns(weight_ptr, columns, D), normed, scale, D)
        tl.store(grad_summed_ptr + offsets, grad_summed, inside)
        # The table has two rows, so their sums need no sorting.
        types = tl.load(types_ptr + rows, rows < N, other=0)[:, None]
        grad_type_0 += tl.where(types == 0, grad_summed, 0.0)
        grad_type_1 += tl.where(types == 1, grad_summed, 0.0)
    columns = tl.arange(0, COLUMNS)
    store_sums(sums_ptr, 0, grad_weight, columns, D)
    store_sums(sums_ptr, 1, grad_bias, columns, D)
    store_sums(sums_ptr, 2, grad_type_0, columns, D)
    store_sums(sums_ptr, 3, grad_type_1, columns, D)
