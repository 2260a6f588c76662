"""Linear layer and cross-entropy in one, without all logits ever being in memory.

Tokens are taken in chunks. The logits of a chunk are one matrix product into a buffer, a kernel
turns them in place into their own gradient, and two more products turn that into the gradients of
what came in. So a single pass gives loss and gradients; the backward pass only scales them.

Memory, beside what comes in and its gradients: the buffer, an fp32 gradient of the decoder and of
`hidden`, and a copy of the decoder where its vocabulary is not aligned or its type another.

Shapes: M masked tokens, C tokens of a chunk, D width, V vocabulary, P vocabulary with padding.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from pretrain.kernels.linear_cross_entropy import IGNORED, CrossEntropy

BUDGET_BYTES = 256 * 2**20  # a few chunks in a step of BERT-base, each of thousands of tokens
_ROWS = 64  # a chunk has a multiple of this many tokens: whole tiles of a matrix product
_ALIGNMENT_BYTES = 128  # of a row; NVIDIA's "Matrix Multiplication Background", tensor cores
_BLOCK = 4096  # logits that a kernel holds at a time

# The gradient of a logit is near 1 / V for most words: in fp16 that is below 2^-14, where digits
# get lost, and the loss scale comes too late to help, with the backward pass. So it is kept times
# 2^10. It is at most 1 in size, and 2^10 is far from fp16's 65,504. All sums over it are fp32, and
# are divided again before they are rounded to fp16.
_FP16_SCALE = 2.0**10


class _Decoder(NamedTuple):
    """A decoder with words added until a row of logits is a multiple of 128 bytes.

    Tensor cores and vector loads are fast on such rows alone, and a vocabulary like 30,522 gives
    none. The weights of what is added are 0 and its bias is -inf: no softmax notices it.
    """

    weight_PD: torch.Tensor  # in the type of the products
    bias_P: torch.Tensor  # fp32

    @classmethod
    def aligned(
        cls, weight_VD: torch.Tensor, bias_V: torch.Tensor, dtype: torch.dtype
    ) -> "_Decoder":
        missing = -len(weight_VD) % (_ALIGNMENT_BYTES // dtype.itemsize)
        weight_PD, bias_P = weight_VD.to(dtype), bias_V.float().contiguous()
        if missing:
            weight_PD = F.pad(weight_PD, (0, 0, 0, missing))
            bias_P = F.pad(bias_P, (0, missing), value=-torch.inf)
        return cls(weight_PD, bias_P)


class _Gradients(NamedTuple):
    """Gradients of the loss, in fp32 and times the scale of their type."""

    hidden_MD: torch.Tensor
    weight_PD: torch.Tensor
    bias_P: torch.Tensor


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

    Of equal logits the first counts as the largest. Nothing here waits for the device.

    Args:
        hidden_MD: fp32, bf16 or fp16, the type in which products are computed.
        weight_VD, bias_V: the decoder, of any of these types.
        labels_M: int64; `IGNORED` leaves a token out. Any other label outside of the vocabulary
            makes the loss infinite or nan: an error would have to wait for the device.
        budget_bytes: how large the buffer of logits may be; see `chunk_rows`.
    """
    inputs = (hidden_MD, weight_VD, bias_V)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        loss, correct = _LinearCrossEntropy.apply(*inputs, labels_M, budget_bytes)
        return CrossEntropy(loss, correct)
    decoder = _Decoder.aligned(weight_VD, bias_V, hidden_MD.dtype)
    return _over_chunks(hidden_MD, decoder, labels_M, budget_bytes, None)


def chunk_rows(tokens: int, row_bytes: int, budget_bytes: int) -> int:
    """Return how many tokens a chunk holds, a multiple of 64.

    As many as the budget has room for but never fewer than 64, which no budget forbids; and shared
    out evenly, because a small last chunk takes longer than its share.

    Args:
        tokens: of all chunks together; may be 0.
        row_bytes: of the logits of one token.
        budget_bytes: of the logits of a chunk.
    """
    most = max(budget_bytes // row_bytes // _ROWS, 1) * _ROWS
    chunks = max(triton.cdiv(tokens, most), 1)
    return max(triton.cdiv(triton.cdiv(tokens, chunks), _ROWS), 1) * _ROWS


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
        decoder = _Decoder.aligned(weight_VD, bias_V, hidden_MD.dtype)
        gradients = _Gradients(
            *(torch.zeros_like(x, dtype=torch.float32) for x in (hidden_MD, *decoder))
        )
        sums = _over_chunks(hidden_MD, decoder, labels_M, budget_bytes, gradients)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = (hidden_MD.dtype, weight_VD.dtype, bias_V.dtype)
        ctx.vocabulary = len(weight_VD)
        ctx.mark_non_differentiable(sums.correct)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss: torch.Tensor, correct: torch.Tensor) -> tuple[Any, ...]:
        hidden_MD, weight_PD, bias_P = ctx.saved_tensors
        factor = loss.float() / _scale(ctx.dtypes[0])
        kept = (hidden_MD, weight_PD[: ctx.vocabulary], bias_P[: ctx.vocabulary])
        scaled = (_times(x, factor, dtype) for x, dtype in zip(kept, ctx.dtypes, strict=True))
        return (*scaled, None, None)


def _over_chunks(
    hidden_MD: torch.Tensor,
    decoder: _Decoder,
    labels_M: torch.Tensor,
    budget_bytes: int,
    gradients: _Gradients | None,
) -> CrossEntropy:
    """Return the sums, and add to the gradients if there are any."""
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
            IGNORED=IGNORED,
            GRADIENT=gradients is not None,
            BLOCK=min(_BLOCK, triton.next_power_of_2(columns)),
            num_warps=8,
        )
        if gradients is not None:
            _add_product(gradients.hidden_MD[chunk], logits_CP, decoder.weight_PD)
            _add_product(gradients.weight_PD, logits_CP.t(), hidden_CD)
            gradients.bias_P.add_(logits_CP.sum(dim=0, dtype=torch.float32))
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
    IGNORED: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Give one token's loss, and its logits' gradient in their place; one program a token."""
    row = tl.program_id(0)
    logits += row.to(tl.int64) * COLUMNS  # a large budget has more than 2^31 logits
    label = tl.load(labels + row)
    normaliser, first_largest = _log_sum_exp(logits, bias, COLUMNS, BLOCK)
    asked = label != IGNORED
    exists = (label >= 0) & (label < COLUMNS)  # what is not a word must not be read, either
    own = tl.load(logits + label, mask=exists, other=0.0).to(tl.float32)
    own += tl.load(bias + label, mask=exists, other=0.0).to(tl.float32)
    loss = tl.where(exists, normaliser - own, float("nan"))
    tl.store(losses + row, tl.where(asked, loss, 0.0))
    tl.store(correct + row, tl.where(first_largest == label, 1.0, 0.0))
    if GRADIENT:
        # A program is alone on its row, but its threads are not: all must have read `own`.
        tl.debug_barrier()
        for start in range(0, COLUMNS, BLOCK):
            place = start + tl.arange(0, BLOCK)
            share = tl.exp(_biased(logits, bias, place, COLUMNS) - normaliser)
            gradient = (share - tl.where(place == label, 1.0, 0.0)) * SCALE
            # Added words have share 0, so the products find zeros there.
            tl.store(logits + place, tl.where(asked, gradient, 0.0), mask=place < COLUMNS)


@triton.jit
def _log_sum_exp(logits, bias, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Return log Σ exp of a row, and where its largest logit is first, in one pass over it."""
    largest = float("-inf")
    first_largest = 0
    total = 0.0
    for start in range(0, COLUMNS, BLOCK):
        logit = _biased(logits, bias, start + tl.arange(0, BLOCK), COLUMNS)
        block_largest, block_place = tl.max(logit, axis=0, return_indices=True)
        first_largest = tl.where(block_largest > largest, start + block_place, first_largest)
        # The sum is relative to the largest logit so far, so that no exponent is above 0.
        new_largest = tl.maximum(largest, block_largest)
        total = total * tl.exp(largest - new_largest) + tl.sum(tl.exp(logit - new_largest), axis=0)
        largest = new_largest
    return largest + tl.log(total), first_largest


@triton.jit
def _biased(logits, bias, place, COLUMNS: tl.constexpr):
    """Return logits with their bias in fp32; beyond the row -inf, which adds nothing."""
    logit = tl.load(logits + place, mask=place < COLUMNS, other=0.0).to(tl.float32)
    return logit + tl.load(bias + place, mask=place < COLUMNS, other=float("-inf"))


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add `left @ right` to an fp32 tensor, without rounding the product to a smaller type."""
    if left.is_cuda and left.dtype != torch.float32:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:  # the CPU has no such product
        total.addmm_(left.float(), right.float())


def _scale(dtype: torch.dtype) -> float:
    return _FP16_SCALE if dtype == torch.float16 else 1.0


def _times(x: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return `x * factor`, rounded once: the factor itself may be too small for fp16."""
    return torch.mul(x, factor, out=torch.empty_like(x, dtype=dtype))
