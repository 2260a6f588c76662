"""Word, position and segment embeddings, LayerNorm and dropout in one pass.

Shapes: N tokens in B rows, V vocabulary, P positions, D width.
"""

import torch
import torch.nn.functional as F

from pretrain.kernels.dropout import keyed_dropout


def embedding_norm(
    input_ids_N: torch.Tensor,
    token_types_N: torch.Tensor,
    positions_N: torch.Tensor,
    word_VD: torch.Tensor,
    type_2D: torch.Tensor,
    position_PD: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    *,
    epsilon: float,
    rate: float,
    keys_B2: torch.Tensor | None,
) -> torch.Tensor:
    """Return dropout(LayerNorm(word + type + position)), [N, D].

    Args:
        input_ids_N, token_types_N, positions_N: int64, indices into the tables.
        word_VD, type_2D, position_PD: the three tables.
        weight_D, bias_D: of the LayerNorm.
        epsilon: of the LayerNorm.
        rate, keys_B2: of the dropout; see `keyed_dropout`.
    """
    summed = (
        F.embedding(input_ids_N, word_VD)
        + F.embedding(token_types_N, type_2D)
        + F.embedding(positions_N, position_PD)
    )
    normed = F.layer_norm(summed, weight_D.shape, weight_D, bias_D, epsilon)
    return keyed_dropout(normed, rate, keys_B2)
