"""Bias, dropout, residual and LayerNorm in one pass: the end of both halves of a post-LN layer.

Shapes: N tokens in B rows, D width.
"""

import torch
import torch.nn.functional as F

from pretrain.kernels.dropout import keyed_dropout


def residual_norm(
    inner_ND: torch.Tensor,
    bias_D: torch.Tensor,
    residual_ND: torch.Tensor,
    weight_D: torch.Tensor,
    norm_bias_D: torch.Tensor,
    *,
    epsilon: float,
    rate: float,
    keys_B2: torch.Tensor | None,
) -> torch.Tensor:
    """Return LayerNorm(dropout(inner + bias) + residual), [N, D].

    Args:
        inner_ND: output of the block's last projection, without its bias.
        bias_D: of that projection.
        residual_ND: the block's input.
        weight_D, norm_bias_D: of the LayerNorm.
        epsilon: of the LayerNorm.
        rate, keys_B2: of the dropout; see `keyed_dropout`.
    """
    summed = keyed_dropout(inner_ND + bias_D, rate, keys_B2) + residual_ND
    return F.layer_norm(summed, weight_D.shape, weight_D, norm_bias_D, epsilon)
