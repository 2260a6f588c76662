"""Attention distributions and value relations: what one layer looks at, and how values compare.

MiniLM (arXiv 2002.10957, sections 3.1 and 3.2), of the last layer:

L_AT = 1/(A n) Σ_a Σ_t KL(softmax(q_T k_T'/√d)(a, t) ‖ softmax(q_S k_S'/√d)(a, t))
L_VR = the same of softmax(v v'/√d)

over heads a and tokens t. MobileBERT's attention transfer (arXiv 2004.02984, section 3.4) is L_AT
of every layer; its code leaves the teacher's entropy out, which changes no gradient.

The functions return means over heads and sums over real tokens; whoever divides by the count n of
real tokens has the equations. Student and teacher have the same number of heads; their widths may
differ. Attention is compared within samples, without padding, and never in memory as a whole: see
attention_divergence.py.
Shapes: N places, D width, T places of a row.
"""

import torch

from pretrain.losses.attention_kl import BUDGET_BYTES, Attending, divergence_sum


def attention_kl_sum(
    student_query_ND: torch.Tensor,
    student_key_ND: torch.Tensor,
    teacher_query_ND: torch.Tensor,
    teacher_key_ND: torch.Tensor,
    heads: int,
    sample_ids_N: torch.Tensor,
    row_tokens: int,
    *,
    budget_bytes: int = BUDGET_BYTES,
) -> torch.Tensor:
    """Return L_AT as a mean over heads and a sum over real tokens, in fp32.

    Args:
        student_query_ND, student_key_ND, teacher_query_ND, teacher_key_ND: of one layer each.
        heads: of both models.
        sample_ids_N: 1, 2, ... within a row; 0 is padding.
        row_tokens: T.
        budget_bytes: of what is in memory at a time.

    Raises:
        UserError: when the heads do not divide a width.
    """
    student = Attending(student_query_ND, student_key_ND)
    teacher = Attending(teacher_query_ND, teacher_key_ND)
    return divergence_sum(
        student, teacher, heads, sample_ids_N, row_tokens, budget_bytes=budget_bytes
    )


def value_relation_kl_sum(
    student_value_ND: torch.Tensor,
    teacher_value_ND: torch.Tensor,
    heads: int,
    sample_ids_N: torch.Tensor,
    row_tokens: int,
    *,
    budget_bytes: int = BUDGET_BYTES,
) -> torch.Tensor:
    """Return L_VR as a mean over heads and a sum over real tokens, in fp32.

    Arguments and errors are those of `attention_kl_sum`.
    """
    student = Attending(student_value_ND, student_value_ND)
    teacher = Attending(teacher_value_ND, teacher_value_ND)
    return divergence_sum(
        student, teacher, heads, sample_ids_N, row_tokens, budget_bytes=budget_bytes
    )
