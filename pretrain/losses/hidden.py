"""Losses on hidden states: cosine distance and mean squared error.

    cosine  Σ_t (1 - cos(h_S(t), h_T(t))), the third term of DistilBERT (arXiv 1910.01108,
            section 3)
    mse     Σ_t 1/D Σ_i (h_S(t, i) - h_T(t, i))², equations 8 (hidden states) and 9 (embeddings)
            of TinyBERT (arXiv 1909.10351), where h_S is already projected to the teacher's width

over real tokens t: means over the width, sums over tokens. Padding contributes nothing, not even
where it holds NaN.
Shapes: N positions, D width (equal in both).
"""

import torch
import torch.nn.functional as F


def cosine_sum(
    student_ND: torch.Tensor, teacher_ND: torch.Tensor, is_token_N: torch.Tensor
) -> torch.Tensor:
    """Return the cosine distance summed over the positions where `is_token_N` is true, in fp32.

    Computed as half the squared distance of unit vectors, which loses no digits near 0.
    """
    student_ND, teacher_ND = (_zero_padding(x, is_token_N) for x in (student_ND, teacher_ND))
    gap_ND = F.normalize(student_ND, dim=-1) - F.normalize(teacher_ND, dim=-1)
    return 0.5 * gap_ND.square().sum(-1).sum()


def mse_sum(
    student_ND: torch.Tensor, teacher_ND: torch.Tensor, is_token_N: torch.Tensor
) -> torch.Tensor:
    """Return the squared distance over the positions where `is_token_N` is true, in fp32.

    It is a mean over the width and a sum over positions.
    """
    gap_ND = _zero_padding(student_ND, is_token_N) - _zero_padding(teacher_ND, is_token_N)
    return gap_ND.square().mean(-1).sum()


def _zero_padding(hidden_ND: torch.Tensor, is_token_N: torch.Tensor) -> torch.Tensor:
    """Return hidden states in fp32, with padding set to 0."""
    return torch.where(is_token_N[:, None], hidden_ND, 0.0).float()
