"""The soft-target loss in fp64, from probabilities; shares nothing with what it checks."""

import torch


def soft_target_sum(
    student_MV: torch.Tensor, teacher_MV: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return T² Σ_m KL(p_T(m) ‖ p_S(m)), p = softmax(z / T) (arXiv 1503.02531, section 2)."""
    p = (teacher_MV.double() / temperature).softmax(dim=-1)
    q = (student_MV.double() / temperature).softmax(dim=-1)
    return temperature**2 * (p * (p / q).log()).sum()
