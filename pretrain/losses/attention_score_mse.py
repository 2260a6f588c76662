"""MSE of attention scores: TinyBERT's loss on q k'/√d of one layer, before the softmax.

    L = 1/A Σ_a MSE(q_S k_S'/√d_S, q_T k_T'/√d_T),   equation 7 of TinyBERT (arXiv 1909.10351)

over heads a. The mean goes over the pairs of tokens of a sample: over real tokens and never across
samples, where the released code also counts padding, with scores of 0. Each model divides by the
root of its own head's width, as that code does. Returned is a mean over heads, over keys j of the
sample, and a sum over queries i: Σ_samples (length · MSE). Divided by the number of real tokens it
is the mean of the samples' MSE, weighted by their lengths.

Scores are computed in tiles, see attention_tiles.py: one product of a tile gives the differences of
the scores, which no whole scores precede. With x = [q_S - q_T, q_T] and y = [k_S, k_S - k_T]
(queries divided by √d, the narrower head padded with zeros), x_i · y_j is that difference, and
every term of it is small where queries and keys agree.

Shapes: N positions, D width, A heads, T positions of a row, R rows and Q queries of a tile.
"""

import torch
import torch.nn.functional as F

from pretrain.losses.attention_tiles import BUDGET_BYTES, tiled_sum
from pretrain.losses.head_layout import QueryKey, exact_products


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
        sample_ids_N: 1, 2, ... within a row; 0 is padding.
        row_tokens: T.
        budget_bytes: of the tensors of a tile together.

    Raises:
        UserError: when the heads do not divide a width.
    """
    # Factors are differences of inputs, which TF32 would round.
    with exact_products(sample_ids_N.device):
        return tiled_sum(
            _compare_scores, student, teacher, heads, sample_ids_N, row_tokens, budget_bytes
        )


def _compare_scores(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    key_ids_RT: torch.Tensor,
    query_ids_RQ: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the MSE of a tile [R, A, Q], and its gradient by the student's scores.

    Both models give [R, A, Q, d] queries and [R, A, T, d] keys. Padding is 0 in them, so are its
    scores and their difference.
    """
    is_apart = query_ids_RQ[:, None, :, None] != key_ids_RT[:, None, None, :]
    width = max(student[0].shape[-1], teacher[0].shape[-1])
    (query, key), (teacher_query, teacher_key) = (
        (_pad(query * query.shape[-1] ** -0.5, width), _pad(key, width))
        for query, key in (student, teacher)
    )
    x = torch.cat([query - teacher_query, teacher_query], -1)
    y = torch.cat([key, key - teacher_key], -1)
    gap = (x @ y.mT).masked_fill(is_apart, 0.0)
    per_key = gap / (~is_apart).sum(-1, keepdim=True)
    return (gap * per_key).sum(-1), 2 * per_key


def _pad(x: torch.Tensor, width: int) -> torch.Tensor:
    return F.pad(x, (0, width - x.shape[-1]))
