"""Self-relations: how queries compare with queries, keys with keys, values with values.

MiniLMv2 (arXiv 2012.15828, section 3.1), of one layer and for x among its queries, keys, values:

L_x = 1/(A n) Σ_a Σ_t KL(softmax(x_T x_T'/√d_T)(a, t) ‖ softmax(x_S x_S'/√d_S)(a, t))

over relation heads a and tokens t. The attention heads of x lie side by side, and their width D is
cut anew into A relation heads of width d = D/A: hence neither the heads nor the widths of student
and teacher need to agree, only A must divide both widths.

The function returns a mean over relation heads and a sum over real tokens; whoever divides by the
count n of real tokens has the equation. Relations are compared within samples, without padding,
and never in memory as a whole: see attention_divergence.py.
Shapes: N places, D width, T places of a row.
"""

import torch

from pretrain.losses.attention_kl import BUDGET_BYTES, Attending, divergence_sum


def relation_kl_sum(
    student_ND: torch.Tensor,
    teacher_ND: torch.Tensor,
    heads: int,
    sample_ids_N: torch.Tensor,
    row_tokens: int,
    *,
    budget_bytes: int = BUDGET_BYTES,
) -> torch.Tensor:
    """Return L_x as a mean over relation heads and a sum over real tokens, in fp32.

    Args:
        student_ND, teacher_ND: x, such as the queries of one layer.
        heads: A, the relation heads.
        sample_ids_N: 1, 2, ... within a row; 0 is padding.
        row_tokens: T.
        budget_bytes: of what is in memory at a time.

    Raises:
        UserError: when the relation heads do not divide a width.
    """
    student, teacher = Attending(student_ND, student_ND), Attending(teacher_ND, teacher_ND)
    return divergence_sum(
        student, teacher, heads, sample_ids_N, row_tokens, budget_bytes=budget_bytes
    )
