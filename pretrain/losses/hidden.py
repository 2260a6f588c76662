"""Hidden states: the student's are where the teacher's are, or at least point there.

cosine  Σ_t (1 - cos(h_S(t), h_T(t))), the third term of DistilBERT (arXiv 1910.01108, section 3)
mse     Σ_t 1/D Σ_i (h_S(t, i) - h_T(t, i))², equations 8 (hidden states) and 9 (embeddings) of
        TinyBERT (arXiv 1909.10351), where h_S is already projected to the teacher's width

over real tokens t: means over the width, sums over tokens. Padding contributes nothing, not even
where it is no number.
Shapes: N places, D width (equal in both).
"""

import torch
import torch.nn.functional as F


def cosine_sum(
    student_ND: torch.Tensor, teacher_ND: torch.Tensor, is_token_N: torch.Tensor
) -> torch.Tensor:
    """Return the summed cosine distance over the places where `is_token_N` is true, in fp32.

    Of unit vectors it is half their squared distance, which loses no digits near 0.
    """
    student_ND, teacher_ND = _tokens(student_ND, is_token_N), _tokens(teacher_ND, is_token_N)
    gap_ND = F.normalize(student_ND, dim=-1) - F.normalize(teacher_ND, dim=-1)
    return 0.5 * gap_ND.square().sum(-1).sum()


def mse_sum(
    student_ND: torch.Tensor, teacher_ND: torch.Tensor, is_token_N: torch.Tensor
) -> torch.Tensor:
    """Return the squared distance over the places where `is_token_N` is true, in fp32.

    It is a mean over the width and a sum over places.
    """
    gap_ND = _tokens(student_ND, is_token_N) - _tokens(teacher_ND, is_token_N)
    return gap_ND.square().mean(-1).sum()


def _tokens(hidden_ND: torch.Tensor, is_token_N: torch.Tensor) -> torch.Tensor:
    """Return hidden states in fp32, with 0 where no token lies."""
    return torch.where(is_token_N[:, None], hidden_ND, 0.0).float()
