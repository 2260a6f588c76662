"""MSE of attention scores: TinyBERT's loss on q k'/√d of one layer, before the softmax.

    L = 1/A Σ_a MSE(q_S k_S'/√d_S, q_T k_T'/√d_T),   equation 7 of TinyBERT (arXiv 1909.10351)

over heads a. The mean goes over the pairs of tokens of a sample: over real tokens and never across
samples, where the released code also counts padding, with scores of 0. Each model divides by the
root of its own head's width, as that code does. Returned is a mean over heads, over keys j of the
sample, and a sum over queries i: Σ_samples (length · MSE). Divided by the number of real tokens it
is the mean of the samples' MSE, weighted by their lengths.

Scores are bilinear, so they need not be materialised. With x = [q_S - q_T, q_T] and
y = [k_S, k_S - k_T] (queries divided by √d, the narrower head padded with zeros), x_i · y_j is the
difference of the scores:

    Σ_ij (x_i · y_j)² = Σ_i x_i' G x_i,   G = Σ_j y_j y_j'

with one Gram matrix G per head and sample, see segment_gram.py: O(T d²) work and O(T d) memory.
x and y are chosen such that every term is small where queries and keys agree; without the
differences, squares of whole scores would cancel. Gradients come from the same products.

Shapes: N positions, B rows of T positions, D width, A heads, R rows at a time.
"""

from collections.abc import Sequence

import torch

from pretrain.losses.head_layout import (
    QueryKey,
    even_slices,
    exact_products,
    head_width,
    heads_of_rows,
    view_of_heads,
)
from pretrain.losses.precomputed_grad import sum_with_gradients
from pretrain.losses.segment_gram import BLOCK, GramBlocks

BUDGET_BYTES = 256 * 2**20


def score_mse_sum(
    student: QueryKey,
    teacher: QueryKey,
    heads: int,
    sample_ids_N: torch.Tensor,
    row_tokens: int,
    budget_bytes: int = BUDGET_BYTES,
) -> torch.Tensor:
    """Return L as a mean over heads and keys and a sum over real queries, in fp32.

    No device-to-host synchronisation.

    Args:
        student, teacher: of any dtype; widths may differ. Only the student gets gradients.
        heads: A, of both.
        sample_ids_N: 1, 2, ... within a row, each contiguous; 0 is padding.
        row_tokens: T.
        budget_bytes: memory of the rows computed at a time; one row is the minimum.

    Raises:
        UserError: when the heads do not divide a width.
    """
    student_width = head_width(student.query_ND.shape[1], heads, "student")
    teacher_width = head_width(teacher.query_ND.shape[1], heads, "teacher")
    max_rows = max(1, budget_bytes // _row_bytes(heads, row_tokens, student_width, teacher_width))
    ids_BT = sample_ids_N.view(-1, row_tokens)

    def sum_over_all(gradients: list[torch.Tensor]) -> torch.Tensor:
        head_gradients = [view_of_heads(x, heads, row_tokens) for x in gradients]
        total = torch.zeros((), device=ids_BT.device)
        for rows in even_slices(len(ids_BT), max_rows):
            student_heads, teacher_heads = (
                [heads_of_rows(x, heads, ids_BT, rows) for x in model]
                for model in (student, teacher)
            )
            row_gradients = [x[rows] for x in head_gradients]
            total += _sum_over_rows(student_heads, teacher_heads, ids_BT[rows], row_gradients)
        return total

    with exact_products(ids_BT.device):
        return sum_with_gradients(sum_over_all, student)


def _row_bytes(heads: int, row_tokens: int, *widths: int) -> int:
    """Return the approximate memory of a row: twelve tensors like x, block pairs, Grams."""
    width = 2 * max(widths)
    position = 12 * width + 2 * BLOCK + 6 * width**2 // BLOCK
    return 4 * heads * (row_tokens + -row_tokens % BLOCK) * position


def _sum_over_rows(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    ids_RT: torch.Tensor,
    gradients: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Return L of some rows, and write the gradients of query and key into `gradients`, if any.

    All but the sample ids are [R, A, T, d].
    """
    heads, row_tokens, width = student[0].shape[1:]
    blocks, widest = GramBlocks.of(ids_RT), max(width, teacher[0].shape[-1])
    query, teacher_query = (
        blocks.cut(model[0] * model[0].shape[-1] ** -0.5, widest) for model in (student, teacher)
    )
    key, teacher_key = (blocks.cut(model[1], widest) for model in (student, teacher))
    x = torch.cat([query - teacher_query, teacher_query], -1)
    y = torch.cat([key, key - teacher_key], -1)
    slope_x = blocks.products(x, y) * blocks.inverse_length_R1nc1
    if gradients:
        slope_y = blocks.products(y, x) * blocks.inverse_length_R1nc1
        by_query = slope_x[..., :widest] * width**-0.5
        by_key = slope_y[..., :widest] + slope_y[..., widest:]  # the halves of x sum to the query
        for gradient, slope in zip(gradients, (by_query, by_key), strict=True):
            gradient.copy_(slope.flatten(2, 3)[:, :, :row_tokens, :width] * (2 / heads))
    return (x * slope_x).sum() / heads
