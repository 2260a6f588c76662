"""Two vocabulary heads and two distillation losses in one: soft targets and hard labels.

    total = a · T² · Σ_m D(m)  +  b · Σ_m -log p_S(label)      over the M tokens with a label

D compares p = softmax(z / T) of the student S with that of the teacher T (arXiv 1503.02531):

    forward    KL(p_T ‖ p_S) = Σ p_T (log p_T - log p_S)
    reverse    KL(p_S ‖ p_T) = Σ p_S (log p_S - log p_T)
    symmetric  half of each

so it is 0 when both agree. T² makes the size of the gradient independent of the temperature.

With u = log p_S - log p_T, the terms -p_T u of the forward divergence are of first order in u and
cancel where student and teacher nearly agree. Both distributions sum to 1, so p_S - p_T may be
added: p_T (exp(u) - 1 - u) is at least 0 and of second order, and its first part is the gradient
p_S - p_T. Likewise the reverse divergence is Σ p_S (exp(-u) - 1 + u).
Shapes: M masked tokens, D width (each head has its own), V vocabulary.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from pretrain.data.batch import IGNORE_INDEX
from pretrain.kernels.linear_fp32_out import linear_fp32_out

Divergence = Literal["forward", "reverse", "symmetric"]


class Head(NamedTuple):
    """The factors of logits, `hidden @ weight.T + bias`."""

    hidden_MD: torch.Tensor
    weight_VD: torch.Tensor
    bias_V: torch.Tensor


class SoftCrossEntropy(NamedTuple):
    """Sums over all tokens that have a label; scalars in fp32.

    Only the total has a gradient: a fused operation makes a single one, for both losses. All of
    them are per masked token, so one count divides them.
    """

    total: torch.Tensor  # soft_weight * soft + hard_weight * hard
    soft: torch.Tensor  # T² Σ D
    hard: torch.Tensor  # Σ -log p(label)
    correct: torch.Tensor  # tokens whose label has the largest logit


def logits_of(head: Head) -> torch.Tensor:
    """Return the logits of a head, [M, V], in fp32 (fp64 for fp64 inputs), never rounded.

    Where student and teacher nearly agree, a gradient is the small difference of two large numbers:
    logits in bf16, off by up to 0.4 %, would make it wrong by several percent and more.
    """
    if head.hidden_MD.is_cuda:
        return linear_fp32_out(*head)
    # A CPU has no fast products of 16-bit numbers, so gradients are not rounded either.
    dtype = torch.promote_types(head.hidden_MD.dtype, torch.float32)
    return F.linear(*(part.to(dtype) for part in head))


def soft_cross_entropy(
    student: Head,
    teacher: Head,
    labels_M: torch.Tensor,
    *,
    temperature: float,
    divergence: Divergence = "forward",
    soft_weight: float = 1.0,
    hard_weight: float = 1.0,
) -> SoftCrossEntropy:
    """Return the losses of the student's logits, summed in fp32 (fp64 for fp64 inputs).

    Args:
        student: receives gradients.
        teacher: receives none; it has the student's vocabulary, and any width.
        labels_M: int64; `IGNORE_INDEX` excludes a token from both losses. For the soft loss at
            tokens without a label, pass any label and a hard weight of 0.
        temperature: T, above 0; it divides the logits of the soft loss alone.
        divergence: forward, reverse or symmetric.
        soft_weight, hard_weight: a and b.
    """
    logits_MV, teacher_MV = logits_of(student), logits_of(teacher).detach()
    has_label_M = labels_M != IGNORE_INDEX
    divergence_M = divergences(logits_MV / temperature, teacher_MV / temperature, divergence)
    soft = temperature**2 * divergence_M.where(has_label_M, 0.0).sum()
    hard = F.cross_entropy(logits_MV, labels_M, reduction="sum", ignore_index=IGNORE_INDEX)
    correct = (logits_MV.detach().argmax(dim=-1) == labels_M).sum().to(soft.dtype)
    total = soft_weight * soft + hard_weight * hard
    return SoftCrossEntropy(total, soft.detach(), hard.detach(), correct)


def divergences(
    student_MV: torch.Tensor, teacher_MV: torch.Tensor, divergence: Divergence
) -> torch.Tensor:
    """Return D of each token [M] from logits that are already divided by T.

    Only the student's logits get a gradient.
    """
    return _Divergences.apply(student_MV, teacher_MV, divergence)  # type: ignore[no-untyped-call]


class _Divergences(torch.autograd.Function):
    """Saves the gradient alone, one tensor of the size of the logits."""

    @staticmethod
    def forward(
        ctx: Any, student_MV: torch.Tensor, teacher_MV: torch.Tensor, divergence: Divergence
    ) -> torch.Tensor:
        divergence_M, gradient_MV = _with_gradient(student_MV, teacher_MV, divergence)
        ctx.save_for_backward(gradient_MV)
        return divergence_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_M: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient_MV,) = ctx.saved_tensors
        return gradient_MV * upstream_M[:, None], None, None


def _with_gradient(
    student_MV: torch.Tensor, teacher_MV: torch.Tensor, divergence: Divergence
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return D of each token [M], and its gradient by the student's logits [M, V]."""
    own_M1, teacher_M1 = (x.logsumexp(-1, keepdim=True) for x in (student_MV, teacher_MV))
    gap = (student_MV - teacher_MV).sub_(own_M1 - teacher_M1)
    p_student, p_teacher = (student_MV - own_M1).exp_(), (teacher_MV - teacher_M1).exp_()
    # Where the student is far above the teacher, expm1 overflows and nothing cancels.
    difference = torch.where(gap < 1, p_teacher * gap.expm1(), p_student - p_teacher)
    forward_M = (difference - p_teacher * gap).sum(dim=-1)
    if divergence == "forward":
        return forward_M, difference
    reverse_M = (p_student * gap - difference).sum(dim=-1)
    reverse_gradient = p_student * (gap - reverse_M[:, None])
    if divergence == "reverse":
        return reverse_M, reverse_gradient
    return (forward_M + reverse_M) / 2, difference.add_(reverse_gradient).div_(2)
