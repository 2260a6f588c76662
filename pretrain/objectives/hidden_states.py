"""Hidden states: the student's last layer points where the teacher's does.

L = Σ_t (1 - cos(h_S(t), h_T(t))) over real tokens t, the third term of DistilBERT
(arXiv 1910.01108, section 3). Padding contributes nothing.
Shapes: B rows, T tokens a row, D width (equal in both).
"""

import torch
import torch.nn.functional as F


def cosine_sum(
    student_BTD: torch.Tensor, teacher_BTD: torch.Tensor, is_token_BT: torch.Tensor
) -> torch.Tensor:
    """Return the summed cosine distance over the places where `is_token_BT` is true, in fp32."""
    cosine_BT = F.cosine_similarity(student_BTD.float(), teacher_BTD.float(), dim=-1)
    return ((1.0 - cosine_BT) * is_token_BT).sum()
