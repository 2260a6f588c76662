"""Soft targets: the student's word distribution follows the teacher's (arXiv 1503.02531).

L = T² · Σ_m KL(p_T(m) ‖ p_S(m)),   p = softmax(z / T), over masked tokens m.

T² keeps the size of the gradient when the temperature changes. The teacher's entropy is part of
the divergence, so the loss is 0 when both agree. DistilBERT's code (arXiv 1910.01108) sums over
all tokens; at masked tokens alone the vocabulary head costs about a seventh.
Shapes: M masked tokens, V vocabulary.
"""

import torch


def soft_target_sum(
    student_logits_MV: torch.Tensor,
    teacher_logits_MV: torch.Tensor,
    temperature: float,
    is_asked_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return T² times the summed divergence, in fp32 and log space.

    Args:
        student_logits_MV, teacher_logits_MV: over the vocabulary.
        temperature: T.
        is_asked_M: false for what fills the list of masked tokens up; None takes all.
    """
    student = torch.log_softmax(student_logits_MV.float() / temperature, dim=-1)
    teacher = torch.log_softmax(teacher_logits_MV.float() / temperature, dim=-1)
    divergence_MV = teacher.exp() * (teacher - student)
    if is_asked_M is not None:
        divergence_MV = divergence_MV * is_asked_M[:, None]
    return temperature**2 * divergence_MV.sum()
