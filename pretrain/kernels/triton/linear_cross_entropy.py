"""Linear layer and cross-entropy in one, without all logits in memory at once.

Tokens are processed in chunks. A matrix product writes the logits of a chunk to a buffer, a kernel
overwrites them with their gradient, and two more products give the gradients of the inputs. So a
single pass gives loss and gradients; the backward pass only scales them.

Memory, beside the inputs and their gradients: the buffer, fp32 gradients of the decoder and of
`hidden`, and a copy of the decoder where its vocabulary is not aligned or its type differs.

Shapes: M masked tokens, C tokens in a chunk, D width, V vocabulary, P vocabulary with padding.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from pretrain.data.batch import IGNORE_INDEX
from pretrain.kernels.linear_cross_entropy import CrossEntropy
from pretrain.kernels.triton.vocabulary import (
    BLOCK,
    BUDGET_BYTES,
    Decoder,
    Gradients,
    biased,
    chunk_rows,
)

# The gradient of a logit is near 1 / V for most tokens: in fp16 that is subnormal, below 2^-14, and
# the loss scale is applied too late, in the backward pass. So it is stored times 2^10. It is 1 at
# most, and 2^10 is far from fp16's 65,504. All sums over it are fp32, and divided by 2^10 before
# they are rounded to fp16.
_FP16_SCALE = 2.0**10


@torch.compiler.disable  # nothing is left to fuse
def linear_cross_entropy(
    hidden_MD: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor,
    labels_M: torch.Tensor,
    *,
    budget_bytes: int = BUDGET_BYTES,
) -> CrossEntropy:
    """Return the loss of the logits `hidden @ weight.T + bias`, summed in fp32.

    Of equal logits the first counts as the largest. There is no device-to-host synchronisation.

    Args:
        hidden_MD: fp32, bf16 or fp16; products are computed in this type.
        weight_VD, bias_V: the decoder, of any of these types.
        labels_M: int64; `IGNORE_INDEX` excludes a token. Any other label outside of the
            vocabulary makes the loss inf or NaN: an error would need a synchronisation.
        budget_bytes: size of the buffer of logits; see `chunk_rows`.
    """
    inputs = (hidden_MD, weight_VD, bias_V)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        loss, correct = _LinearCrossEntropy.apply(*inputs, labels_M, budget_bytes)
        return CrossEntropy(loss, correct)
    decoder = Decoder.aligned(weight_VD, bias_V, hidden_MD.dtype)
    return _over_chunks(hidden_MD, decoder, labels_M, budget_bytes, None)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor,
        labels_M: torch.Tensor,
        budget_bytes: int,
    ) -> CrossEntropy:
        decoder = Decoder.aligned(weight_VD, bias_V, hidden_MD.dtype)
        gradients = Gradients.zeros(hidden_MD, decoder)
        sums = _over_chunks(hidden_MD, decoder, labels_M, budget_bytes, gradients)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = (hidden_MD.dtype, weight_VD.dtype, bias_V.dtype)
        ctx.vocabulary = len(weight_VD)
        ctx.mark_non_differentiable(sums.correct)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss: torch.Tensor, correct: torch.Tensor) -> tuple[Any, ...]:
        factor = loss.float() / _scale(ctx.dtypes[0])
        gradients = Gradients(*ctx.saved_tensors)
        return (*gradients.times(factor, ctx.dtypes, ctx.vocabulary), None, None)


def _over_chunks(
    hidden_MD: torch.Tensor,
    decoder: Decoder,
    labels_M: torch.Tensor,
    budget_bytes: int,
    gradients: Gradients | None,
) -> CrossEntropy:
    """Return the sums over all chunks, and accumulate into `gradients` unless it is None."""
    tokens, columns = len(hidden_MD), len(decoder.bias_P)
    rows = chunk_rows(tokens, columns * hidden_MD.element_size(), budget_bytes)
    buffer_CP = hidden_MD.new_empty(min(rows, tokens), columns)
    losses_M, correct_M = hidden_MD.new_empty(2, tokens, dtype=torch.float32)
    for chunk in (slice(start, start + rows) for start in range(0, tokens, rows)):
        hidden_CD = hidden_MD[chunk]
        logits_CP = buffer_CP[: len(hidden_CD)]
        torch.mm(hidden_CD, decoder.weight_PD.t(), out=logits_CP)
        _row_kernel[(len(hidden_CD),)](
            logits_CP,
            decoder.bias_P,
            labels_M[chunk].contiguous(),
            losses_M[chunk],
            correct_M[chunk],
            COLUMNS=columns,
            SCALE=_scale(hidden_MD.dtype),
            IGNORE_INDEX=IGNORE_INDEX,
            GRADIENT=gradients is not None,
            BLOCK=min(BLOCK, triton.next_power_of_2(columns)),
            num_warps=8,
        )
        if gradients is not None:
            gradients.add(chunk, logits_CP, hidden_CD, decoder)
    return CrossEntropy(losses_M.sum(), correct_M.sum())


@triton.jit
def _row_kernel(
    logits,
    bias,
    labels,
    losses,
    correct,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
    IGNORE_INDEX: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute the loss of one token, and overwrite its logits with their gradient."""
    row = tl.program_id(0)
    logits += row.to(tl.int64) * COLUMNS  # a large budget has more than 2^31 logits
    label = tl.load(labels + row)
    normaliser, first_largest = _log_sum_exp(logits, bias, COLUMNS, BLOCK)
    has_label = label != IGNORE_INDEX
    in_vocabulary = (label >= 0) & (label < COLUMNS)  # any other index would read out of bounds
    label_logit = tl.load(logits + label, mask=in_vocabulary, other=0.0).to(tl.float32)
    label_logit += tl.load(bias + label, mask=in_vocabulary, other=0.0).to(tl.float32)
    loss = tl.where(in_vocabulary, normaliser - label_logit, float("nan"))
    tl.store(losses + row, tl.where(has_label, loss, 0.0))
    tl.store(correct + row, tl.where(first_largest == label, 1.0, 0.0))
    if GRADIENT:
        # All threads of the program must have read `label_logit` before it is overwritten.
        tl.debug_barrier()
        for start in range(0, COLUMNS, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            probability = tl.exp(biased(logits, bias, columns, COLUMNS) - normaliser)
            gradient = (probability - tl.where(columns == label, 1.0, 0.0)) * SCALE
            # Padding of the vocabulary has probability 0, hence gradient 0.
            tl.store(logits + columns, tl.where(has_label, gradient, 0.0), mask=columns < COLUMNS)


@triton.jit
def _log_sum_exp(logits, bias, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Return log Σ exp of a row and the index of its first largest logit, in one pass."""
    largest = float("-inf")
    first_largest = 0
    total = 0.0
    for start in range(0, COLUMNS, BLOCK):
        logit = biased(logits, bias, start + tl.arange(0, BLOCK), COLUMNS)
        block_largest, block_index = tl.max(logit, axis=0, return_indices=True)
        first_largest = tl.where(block_largest > largest, start + block_index, first_largest)
        # The sum is relative to the largest logit so far, so that no exponent is above 0.
        new_largest = tl.maximum(largest, block_largest)
        total = total * tl.exp(largest - new_largest) + tl.sum(tl.exp(logit - new_largest), axis=0)
        largest = new_largest
    return largest + tl.log(total), first_largest


def _scale(dtype: torch.dtype) -> float:
    return _FP16_SCALE if dtype == torch.float16 else 1.0
