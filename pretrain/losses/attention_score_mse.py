"""Attention scores: TinyBERT's q k'/√d of one layer, before any softmax.

L = 1/A Σ_a MSE(q_S k_S'/√d_S, q_T k_T'/√d_T),   equation 7 of TinyBERT (arXiv 1909.10351)

over heads a. The mean goes over the pairs of tokens of a sample: over real tokens and never across
samples, where the released code also counts padding, with scores of 0. Each model divides by the
root of its own head's width, as that code does. Returned is a mean over heads, over keys j of the
sample, and a sum over queries i: Σ_samples (length · MSE). Whoever divides by the count of real
tokens has the mean of the samples' MSE, each by its length.

Scores are linear, so none need be made. With x = [q_S - q_T, q_T], y = [k_S, k_S - k_T] (queries
divided by √d, the narrower head filled up with zeros), x_i · y_j is the difference of the scores:

Σ_ij (x_i · y_j)² = Σ_i x_i' G x_i,   G = Σ_j y_j y_j'

with one Gram matrix G a head and sample, see sample_grams.py: O(T d²) work and O(T d) memory.
x and y are chosen such that every term is small where queries and keys agree; without the
differences, squares of whole scores would cancel out. Gradients come from the same products.

Shapes: N places, B rows of T places, D width, A heads, R rows at a time.
"""

from collections.abc import Sequence

import torch

from pretrain.losses.head_layout import (
    exact_products,
    head_width,
    heads_of_rows,
    spans,
    view_of_heads,
)
from pretrain.losses.precomputed_grad import with_gradients
from pretrain.losses.segment_gram import CHUNK, Chunks

BUDGET_BYTES = 256 * 2**20


def score_mse_sum(
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
    """Return L as a mean over heads and keys and a sum over real queries, in fp32.

    Nothing here waits for the device.

    Args:
        student_query_ND, student_key_ND, teacher_query_ND, teacher_key_ND: of one layer each; the
            widths of the models may differ. Only the student gets gradients.
        heads: A, of both models.
        sample_ids_N: 1, 2, ... within a row, each in places next to each other; 0 is padding.
        row_tokens: T.
        budget_bytes: of what is in memory at a time; one row is the least.

    Raises:
        UserError: when the heads do not divide a width.
    """
    student, teacher = (student_query_ND, student_key_ND), (teacher_query_ND, teacher_key_ND)
    width = head_width(student_query_ND.shape[1], heads, "student")
    taught_width = head_width(teacher_query_ND.shape[1], heads, "teacher")
    ids_BT = sample_ids_N.view(-1, row_tokens)
    most_rows = max(1, budget_bytes // _row_bytes(heads, row_tokens, max(width, taught_width)))
    is_learned = torch.is_grad_enabled() and any(x.requires_grad for x in student)
    with torch.no_grad(), exact_products(ids_BT.device):
        gradients = [torch.zeros(x.shape, device=x.device) for x in student if is_learned]
        filled = [view_of_heads(x, heads, row_tokens) for x in gradients]
        total = torch.zeros((), device=ids_BT.device)
        for rows in spans(len(ids_BT), most_rows):
            ours, theirs = (
                [heads_of_rows(x, heads, ids_BT, rows) for x in model]
                for model in (student, teacher)
            )
            total += _over_rows(ours, theirs, ids_BT[rows], [x[rows] for x in filled])
    return with_gradients(total, student, gradients) if is_learned else total


def _row_bytes(heads: int, row_tokens: int, width: int) -> int:
    """Return about what a row needs: twelve tensors like x, pairs in chunks, Gram matrices."""
    place = 12 * 2 * width + 2 * CHUNK + 6 * (2 * width) ** 2 // CHUNK
    return 4 * heads * (row_tokens + -row_tokens % CHUNK) * place


def _over_rows(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    ids_RT: torch.Tensor,
    gradients: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Return the sum over some rows, and fill the gradients of query and key, if there are any.

    All but the sample ids are [R, A, T, d].
    """
    heads, row_tokens, width = student[0].shape[1:]
    chunks, widest = Chunks.of(ids_RT), max(width, teacher[0].shape[-1])
    query, taught_query = (
        chunks.cut(model[0] * model[0].shape[-1] ** -0.5, widest) for model in (student, teacher)
    )
    key, taught_key = (chunks.cut(model[1], widest) for model in (student, teacher))
    x = torch.cat([query - taught_query, taught_query], -1)
    y = torch.cat([key, key - taught_key], -1)
    slope_x = chunks.products(x, y) * chunks.share_R1nc1
    if gradients:
        slope_y = chunks.products(y, x) * chunks.share_R1nc1
        by_query = slope_x[..., :widest] * width**-0.5
        by_key = slope_y[..., :widest] + slope_y[..., widest:]  # x's own parts add up to the query
        for gradient, slope in zip(gradients, (by_query, by_key), strict=True):
            gradient.copy_(slope.flatten(2, 3)[:, :, :row_tokens, :width] * (2 / heads))
    return (x * slope_x).sum() / heads
