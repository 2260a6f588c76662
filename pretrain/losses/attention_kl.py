"""KL losses on attention distributions and on self-relations of queries, keys and values.

MiniLM (arXiv 2002.10957, sections 3.1 and 3.2), of the last layer:

    L_AT = 1/(A n) Σ_a Σ_t KL(softmax(q_T k_T'/√d)(a, t) ‖ softmax(q_S k_S'/√d)(a, t))
    L_VR = the same of softmax(v v'/√d)

MiniLMv2 (arXiv 2012.15828, section 3.1), of one layer, for x among its queries, keys and values:

    L_x = 1/(A n) Σ_a Σ_t KL(softmax(x_T x_T'/√d_T)(a, t) ‖ softmax(x_S x_S'/√d_S)(a, t))

over heads a and real tokens t. In L_AT and L_VR the heads are the attention heads, of which both
models have the same number. In L_x they are relation heads: the width D is split anew into A heads
of width d = D/A, so neither the attention heads nor the widths of the models need to agree, only A
must divide both widths. MobileBERT's attention transfer (arXiv 2004.02984, section 3.4) is L_AT of
every layer; its code omits the teacher's entropy, which changes no gradient.

L_AT is `tiled_kl_sum` of attention_tiles.py, which compares attention within samples, without
padding; the relations of L_VR and L_x are those of a tensor with itself. The functions return means
over heads and sums over real tokens; dividing by the number n of real tokens gives the equations.
Shapes: N positions, D width, T positions of a row.
"""

import torch

from pretrain.losses.attention_tiles import BUDGET_BYTES, tiled_kl_sum
from pretrain.losses.head_layout import QueryKey


def relation_kl_sum(
    student_ND: torch.Tensor,
    teacher_ND: torch.Tensor,
    heads: int,
    sample_ids_N: torch.Tensor,
    row_tokens: int,
    budget_bytes: int = BUDGET_BYTES,
) -> torch.Tensor:
    """Return L_x, or L_VR of values, as a mean over heads and a sum over real tokens, in fp32.

    Args:
        student_ND, teacher_ND: x, such as the queries of one layer.
        heads: A, relation heads; of L_VR the attention heads.
        sample_ids_N: 1, 2, ... within a row; 0 is padding.
        row_tokens: T.
        budget_bytes: memory of one tile.

    Raises:
        UserError: when the heads do not divide a width.
    """
    student, teacher = QueryKey(student_ND, student_ND), QueryKey(teacher_ND, teacher_ND)
    return tiled_kl_sum(student, teacher, heads, sample_ids_N, row_tokens, budget_bytes)
