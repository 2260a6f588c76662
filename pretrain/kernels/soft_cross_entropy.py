"""Two vocabulary heads and two distillation losses in one: soft targets and hard labels.

    total = a · T² · Σ_m D(m)  +  b · Σ_m -log p_S(label)      over the M tokens with a label

D compares p = softmax(z / T) of the student S with that of the teacher T (arXiv 1503.02531):

    forward    KL(p_T ‖ p_S) = Σ p_T (log p_T - log p_S)
    reverse    KL(p_S ‖ p_T) = Σ p_S (log p_S - log p_T)
    symmetric  half of each

so it is 0 when both agree. T² makes the size of the gradient independent of the temperature.
Shapes: M masked tokens, D width (each head has its own), V vocabulary.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

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
    """Return D of each token [M] from logits that are already divided by T, in log space."""
    student, teacher = student_MV.log_softmax(dim=-1), teacher_MV.log_softmax(dim=-1)
    if divergence == "symmetric":
        return (_kl(teacher, student) + _kl(student, teacher)) / 2
    return _kl(teacher, student) if divergence == "forward" else _kl(student, teacher)


def _kl(of_MV: torch.Tensor, against_MV: torch.Tensor) -> torch.Tensor:
    return (of_MV.exp() * (of_MV - against_MV)).sum(dim=-1)
