"""Two vocabulary heads, soft targets and hard labels in one, without all logits in memory at once.

As in linear_cross_entropy.py, tokens are processed in chunks and a single pass gives losses and
gradients. Each head writes the logits of a chunk to a buffer of its own; one kernel
(soft_cross_entropy_row.py) reads both twice, first for sums and normalisers, then for the gradient,
which overwrites the student's logits. With s and t the logits of student and teacher over T, that
gradient is

    forward  a T (p_S - p_T)                                 reverse  a T p_S (log p_S/p_T - KL)
    hard     b (softmax(z_S) - onehot)

(arXiv 1503.02531, section 2, and the derivative of KL(p_S ‖ p_T) with respect to z_S).

Precision: divergences are summed in the second reading, by terms that are small where both heads
nearly agree, see the reference. There a gradient is the small difference of two large numbers:
logits in bf16, off by 0.4 %, would make it wrong by several percent, so both buffers are fp32. The
gradient itself is a factor of two products in 16 bits: in fp16, because bf16 would add an error of
0.15 %, and fp16 adds 0.02 %. Hence heads in bf16 are computed in fp16 throughout, which represents
bf16 numbers from 6e-5 to 65504 exactly and smaller ones with an error of 3e-8 at most; and equal
heads give equal logits, so a divergence of exactly 0.

Memory, beside the inputs and their gradients: both buffers, fp32 gradients of the student's decoder
and hidden states, and a copy of each decoder that is not aligned or of another type.
Shapes: M masked tokens, C tokens in a chunk, D width, V vocabulary, P vocabulary with padding.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
from torch.autograd.function import once_differentiable

from pretrain.data.batch import IGNORE_INDEX
from pretrain.kernels.soft_cross_entropy import Divergence, Head, SoftCrossEntropy
from pretrain.kernels.triton.soft_cross_entropy_row import row_kernel
from pretrain.kernels.triton.vocabulary import (
    BUDGET_BYTES,
    Decoder,
    Gradients,
    chunk_rows,
    write_product,
)

# Logits of each head that a program holds at a time. Compiled for sm_90, 2048 take 64 registers per
# thread, which allows 32 warps per multiprocessor; 4096 take 141, which allows 8.
_BLOCK = 2048
_GRADIENT_BYTES = 2  # of the smallest type of a gradient, whose rows are aligned too
_FORWARD_SHARE = {"forward": 1.0, "reverse": 0.0, "symmetric": 0.5}
# The gradient of a logit is at most a T + b in size, except for the reverse part: that is at most
# a T (d / 4 + 1) where a logit of the student is d T too large. These powers of two times such
# bounds stay below fp16's 65,504, up to a d of 250; larger gradients are clamped.
_FP16_BOUND, _FP16_BOUND_REVERSE = 2.0**15, 2.0**9
_FP16_LARGEST = 65504.0


class _Loss(NamedTuple):
    """The arguments of the loss, in the form of the kernel."""

    temperature: float
    forward_share: float
    soft_weight: float
    hard_weight: float

    def scale(self, dtype: torch.dtype) -> float:
        """Return the power of two by which gradients are multiplied while they are in `dtype`."""
        bound = abs(self.soft_weight) * self.temperature + abs(self.hard_weight)
        if dtype == torch.float32 or not bound:
            return 1.0
        room = _FP16_BOUND if self.forward_share == 1.0 else _FP16_BOUND_REVERSE
        return 2.0 ** math.floor(math.log2(room / bound))


@torch.compiler.disable  # nothing is left to fuse
def soft_cross_entropy(
    student: Head,
    teacher: Head,
    labels_M: torch.Tensor,
    *,
    temperature: float,
    divergence: Divergence = "forward",
    soft_weight: float = 1.0,
    hard_weight: float = 1.0,
    budget_bytes: int = BUDGET_BYTES,
) -> SoftCrossEntropy:
    """Return the losses of the student's logits, summed in fp32.

    Weights and temperature may change from call to call without recompiling the kernel. Of equal
    logits the first counts as the largest. There is no device-to-host synchronisation.

    Args:
        student: fp32, bf16 or fp16 hidden states; a decoder of any of these types.
        teacher: the same, of any of these types; gets no gradient.
        labels_M: int64; `IGNORE_INDEX` excludes a token from both losses. Any other label outside
            of the vocabulary makes the total NaN: an error would need a synchronisation.
        temperature: T, above 0.
        divergence: see the reference.
        soft_weight, hard_weight: of the total.
        budget_bytes: size of both buffers of logits together; see `chunk_rows`.
    """
    loss = _Loss(temperature, _FORWARD_SHARE[divergence], soft_weight, hard_weight)
    if torch.is_grad_enabled() and any(x.requires_grad for x in student):
        sums = _SoftCrossEntropy.apply(*student, teacher, labels_M, loss, budget_bytes)
        return SoftCrossEntropy(*sums)
    decoder = _aligned(student)
    return _over_chunks(student.hidden_MD, decoder, teacher, labels_M, loss, budget_bytes, None)


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor,
        teacher: Head,
        labels_M: torch.Tensor,
        loss: _Loss,
        budget_bytes: int,
    ) -> SoftCrossEntropy:
        student = Head(hidden_MD, weight_VD, bias_V)
        decoder = _aligned(student)
        gradients = Gradients.zeros(hidden_MD, decoder)
        sums = _over_chunks(hidden_MD, decoder, teacher, labels_M, loss, budget_bytes, gradients)
        ctx.save_for_backward(*gradients)
        ctx.scale = loss.scale(decoder.weight_PD.dtype)
        ctx.dtypes = [x.dtype for x in student]
        ctx.vocabulary = len(weight_VD)
        ctx.mark_non_differentiable(sums.soft, sums.hard, sums.correct)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, total: torch.Tensor, *others: torch.Tensor) -> tuple[Any, ...]:
        gradients = Gradients(*ctx.saved_tensors)
        scaled = gradients.times(total.float() / ctx.scale, ctx.dtypes, ctx.vocabulary)
        return (*scaled, None, None, None, None)


def _aligned(head: Head) -> Decoder:
    """Return a decoder in the type that products are computed in."""
    dtype = torch.float32 if head.hidden_MD.dtype == torch.float32 else torch.float16
    return Decoder.aligned(head.weight_VD, head.bias_V, dtype, _GRADIENT_BYTES)


def _over_chunks(
    hidden_MD: torch.Tensor,
    decoder: Decoder,
    teacher: Head,
    labels_M: torch.Tensor,
    loss: _Loss,
    budget_bytes: int,
    gradients: Gradients | None,
) -> SoftCrossEntropy:
    """Return the sums over all chunks, and accumulate into `gradients` unless it is None."""
    tokens, columns = len(hidden_MD), len(decoder.bias_P)
    dtype, teacher_decoder = decoder.weight_PD.dtype, _aligned(teacher)
    rows = chunk_rows(tokens, 2 * columns * torch.float32.itemsize, budget_bytes)
    buffers = hidden_MD.new_empty(2, min(rows, tokens), columns, dtype=torch.float32)
    sums_M = hidden_MD.new_empty(3, tokens, dtype=torch.float32)
    for chunk in (slice(start, start + rows) for start in range(0, tokens, rows)):
        hidden_CD = hidden_MD[chunk].to(dtype)
        logits_CP, teacher_CP = buffers[:, : len(hidden_CD)]
        write_product(logits_CP, hidden_CD, decoder.weight_PD.t())
        teacher_CD = teacher.hidden_MD[chunk].to(teacher_decoder.weight_PD.dtype)
        write_product(teacher_CP, teacher_CD, teacher_decoder.weight_PD.t())
        gradient_CP = logits_CP.view(dtype)[:, :columns]  # the first half of a row, in fp16
        row_kernel[(len(hidden_CD),)](
            logits_CP,
            teacher_CP,
            gradient_CP,
            decoder.bias_P,
            teacher_decoder.bias_P,
            labels_M[chunk].contiguous(),
            *sums_M[:, chunk],
            1.0 / loss.temperature,
            loss.forward_share,
            loss.soft_weight * loss.temperature * loss.scale(dtype),
            loss.hard_weight * loss.scale(dtype),
            VOCABULARY=len(teacher.bias_V),
            COLUMNS=columns,
            STRIDE=gradient_CP.stride(0),
            LARGEST=_FP16_LARGEST,
            IGNORE_INDEX=IGNORE_INDEX,
            GRADIENT=gradients is not None,
            BLOCK=min(_BLOCK, triton.next_power_of_2(columns)),
            num_warps=8,
        )
        if gradients is not None:
            gradients.add(chunk, gradient_CP, hidden_CD, decoder)
    divergence, hard, correct = sums_M.sum(dim=1)
    soft = divergence * loss.temperature**2
    total = loss.soft_weight * soft + loss.hard_weight * hard
    return SoftCrossEntropy(total, soft, hard, correct)
