"""Hidden states: the student's last layer points where the teacher's does.

L = Σ_t (1 - cos(h_S(t), h_T(t))) over real tokens t, the third term of DistilBERT
(arXiv 1910.01108, section 3). Padding contributes nothing.
Shapes: N places, D width (equal in both).
"""

import torch
import torch.nn.functional as F


def cosine_sum(
    student_ND: torch.Tensor, teacher_ND: torch.Tensor, is_token_N: torch.Tensor
) -> torch.Tensor:
    """Return the summed cosine distance over the places where `is_token_N` is true, in fp32."""
    cosine_N = F.cosine_similarity(student_ND.float(), teacher_ND.float(), dim=-1)
    return ((1.0 - cosine_N) * is_token_N).sum()
