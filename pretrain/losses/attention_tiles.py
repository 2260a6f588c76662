"""KL divergence between two models' softmax(q k'/√d), computed in tiles.

    L = 1/A Σ_a Σ_t KL(p_T(a, t) ‖ p_S(a, t)),   p(a, t) = softmax_j(q(a, t) · k(a, j) / √d)

over heads a, real tokens t, and the tokens j of the sample of t. It is a mean over heads and a sum
over tokens. Student and teacher divide by the root of their own head's width. The teacher's entropy
is included, so that L is 0 at equality.

The attention matrix is never materialised as a whole. A tile holds some queries and all keys of
their row. From its scores follow the divergence and their gradient, which is accumulated into the
gradients of queries and keys, so a single pass gives the sum and its gradients. Memory, beside the
inputs and the fp32 gradients: one tile, bounded by a budget and at least one query, linear in T.

With Δ = log p_T - log p_S, each term p_T (exp(-Δ) - 1 + Δ) is at least 0 and of second order in Δ.
These terms have the same sum as p_T Δ, since both distributions sum to 1, and lose no digits where
student and teacher nearly agree. Their first part is the gradient p_S - p_T.

Shapes: N positions, B rows of T positions, D width, A heads, d = D/A, R rows and Q queries of a
tile.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch._dynamo import config as dynamo_config

from pretrain.kernels.dispatch import has_triton
from pretrain.losses.head_layout import (
    QueryKey,
    even_slices,
    exact_products,
    head_width,
    heads_of_rows,
    view_of_heads,
)
from pretrain.losses.precomputed_grad import sum_with_gradients

BUDGET_BYTES = 256 * 2**20
_QUERIES = 128  # of a tile: products of that height keep a GPU busy
# Tensors of a tile's size that are in memory at once: fused, both models' scores and the gradient.
_TENSORS, _FUSED_TENSORS = 8, 3
_PROGRAMS = 64  # compiled tile shapes: two heights per row length, for each pair of head widths

# Queries and keys of both models, sample ids of keys and of queries -> a loss and its gradient.
CompareTile = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def tiled_kl_sum(
    student: QueryKey,
    teacher: QueryKey,
    heads: int,
    sample_ids_N: torch.Tensor,
    row_tokens: int,
    budget_bytes: int = BUDGET_BYTES,
) -> torch.Tensor:
    """Return L as a mean over heads and a sum over real tokens, in fp32.

    No device-to-host synchronisation.

    Args:
        student, teacher: of any dtype; widths may differ. Only the student gets gradients.
        heads: A, of both.
        sample_ids_N: 1, 2, ... within a row; 0 is padding, which neither attends nor is attended.
        row_tokens: T.
        budget_bytes: of the tensors of a tile together.

    Raises:
        UserError: when the heads do not divide a width.
    """
    with exact_products(sample_ids_N.device, (*student, *teacher)):
        return tiled_sum(_compare, student, teacher, heads, sample_ids_N, row_tokens, budget_bytes)


def tiled_sum(
    compare: CompareTile,
    student: QueryKey,
    teacher: QueryKey,
    heads: int,
    sample_ids_N: torch.Tensor,
    row_tokens: int,
    budget_bytes: int,
) -> torch.Tensor:
    """Return what a function of tiles gives, as a mean over heads and a sum over queries.

    The arguments after the first are those of `tiled_kl_sum`.
    """
    for name, model in (("student", student), ("teacher", teacher)):
        head_width(model.query_ND.shape[1], heads, name)
    ids_BT = sample_ids_N.view(-1, row_tokens)
    inputs = student[:1] if student.key_ND is student.query_ND else student
    compute = partial(_sum_over_tiles, compare, student, teacher, heads, ids_BT, budget_bytes)
    return sum_with_gradients(compute, inputs)


def tile_size(
    rows: int, heads: int, row_tokens: int, budget_bytes: int, tensors: int = _TENSORS
) -> tuple[int, int]:
    """Return the largest number of rows and of queries of a tile that fits into the budget.

    `tensors` of its size are in memory at once. The minimum is one query of one row, whatever the
    budget.
    """
    query_bytes = heads * row_tokens * 4 * tensors
    queries = max(1, min(row_tokens, _QUERIES, budget_bytes // query_bytes))
    return max(1, min(rows, budget_bytes // (queries * query_bytes))), queries


def choose_compare(compare: CompareTile, device: torch.device) -> tuple[CompareTile, int]:
    """Return a tile function as a device computes it, and how many tensors of tile size it needs.

    On a GPU it is compiled.
    """
    if device.type == "cuda" and has_triton():
        return _compiled(compare), _FUSED_TENSORS
    return compare, _TENSORS


def _sum_over_tiles(
    compare: CompareTile,
    student: QueryKey,
    teacher: QueryKey,
    heads: int,
    ids_BT: torch.Tensor,
    budget_bytes: int,
    gradients: list[torch.Tensor],
) -> torch.Tensor:
    """Return L and accumulate the gradients: none, or of the query, or of query and key."""
    total = torch.zeros((), device=ids_BT.device)
    compare, tensors = choose_compare(compare, ids_BT.device)
    head_gradients = [view_of_heads(x, heads, ids_BT.shape[1]) for x in gradients]
    max_rows, max_queries = tile_size(len(ids_BT), heads, ids_BT.shape[1], budget_bytes, tensors)
    for rows in even_slices(len(ids_BT), max_rows):
        query, key = _heads_of(student, heads, ids_BT, rows)
        teacher_query, teacher_key = _heads_of(teacher, heads, ids_BT, rows)
        for queries in even_slices(ids_BT.shape[1], max_queries):
            pairs = ((query[:, :, queries], key), (teacher_query[:, :, queries], teacher_key))
            part_RAQ, slope = compare(*pairs, ids_BT[rows], ids_BT[rows, queries])
            total += part_RAQ.sum()
            if head_gradients:
                # Not `+=`: to an indexed tensor, it copies the result onto itself.
                head_gradients[0][rows, :, queries].add_(slope @ key)
                head_gradients[-1][rows].add_(slope.mT @ query[:, :, queries])
    for gradient in gradients:
        gradient *= (gradient.shape[1] // heads) ** -0.5 / heads
    return total / heads


def _heads_of(
    model: QueryKey, heads: int, ids_BT: torch.Tensor, rows: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries and keys of some rows, [R, A, T, d]; computed once where both are the same."""
    query = heads_of_rows(model.query_ND, heads, ids_BT, rows)
    if model.key_ND is model.query_ND:
        return query, query
    return query, heads_of_rows(model.key_ND, heads, ids_BT, rows)


def _compare(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    key_ids_RT: torch.Tensor,
    query_ids_RQ: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the divergences of a tile [R, A, Q], and their gradient by the student's scores.

    Both models give [R, A, Q, d] queries and [R, A, T, d] keys. Padding is 0 in them: in both it
    attends evenly to the padding of its row, with a divergence of 0. The divergences are summed by
    the caller, in a kernel that spreads over the GPU; the compiler would use one multiprocessor.
    """
    is_apart = query_ids_RQ[:, None, :, None] != key_ids_RT[:, None, None, :]
    log_student, log_teacher = (_log_attention(*pair, is_apart) for pair in (student, teacher))
    # Across samples both logarithms are -inf and their difference would be NaN.
    gap = (log_teacher - log_student).masked_fill(is_apart, 0.0)
    p_teacher = log_teacher.exp()
    # Where the student is far above the teacher, expm1 overflows and nothing cancels.
    slope = torch.where(gap > -1, p_teacher * torch.expm1(-gap), log_student.exp() - p_teacher)
    return (slope + p_teacher * gap).sum(-1), slope


def _log_attention(query: torch.Tensor, key: torch.Tensor, is_apart: torch.Tensor) -> torch.Tensor:
    """Return log softmax(q k'/√d) over the keys of the same sample; padding is a sample too."""
    scores = (query @ key.mT) * query.shape[-1] ** -0.5
    return scores.masked_fill(is_apart, -torch.inf).log_softmax(-1)


@cache
def _compiled(compare: CompareTile) -> CompareTile:
    """Return a function as one kernel per shape, compiled when the first tile of it arrives."""
    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, _PROGRAMS)
    return torch.compile(compare, dynamic=False, fullgraph=True)
