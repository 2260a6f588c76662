"""A transformer layer that normalises after each block, as BERT does (arXiv 1810.04805).

Modules are nested and named as in transformers' Bert: `attention.self.query.weight`,
`attention.output.LayerNorm.weight`, `output.dense.weight`, and so on.
Shapes: N places, D width, F width inside the feed-forward block.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain.kernels.dispatch import Kernels
from pretrain.model.attention import Packing, SelfAttention
from pretrain.model.captured_states import Projected
from pretrain.model.config import BertShape


class Residual(nn.Module):
    """Projection, dropout, addition to the block's input, LayerNorm: the end of both blocks."""

    def __init__(self, inner_width: int, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inner_width, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.rate = shape.dropout

    def forward(
        self,
        inner: torch.Tensor,
        block_input_ND: torch.Tensor,
        key: torch.Tensor | None,
        kernels: Kernels,
    ) -> torch.Tensor:
        """Return the block's output [N, D]."""
        return kernels.residual_norm(
            F.linear(inner, self.dense.weight),
            self.dense.bias,
            block_input_ND,
            self.LayerNorm.weight,
            self.LayerNorm.bias,
            epsilon=self.LayerNorm.eps,
            rate=self.rate,
            key=key,
        )


class AttentionBlock(nn.Module):
    """Self-attention with its residual."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.self = SelfAttention(shape.width, shape.heads)
        self.output = Residual(shape.width, shape)

    def forward(
        self,
        hidden_ND: torch.Tensor,
        packing: Packing,
        key: torch.Tensor | None,
        kernels: Kernels,
        shows: bool,
    ) -> tuple[torch.Tensor, Projected | None]:
        """Return the block's output [N, D], and its projections where `shows` asks for them."""
        attended_ND, shown = self.self(hidden_ND, packing, shows)
        return self.output(attended_ND, hidden_ND, key, kernels), shown


class FeedForwardIn(nn.Module):
    """The widening half of the feed-forward block, with GELU (its exact form, as BERT's)."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.feed_forward)

    def forward(self, hidden_ND: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """Return [N, F]."""
        return kernels.bias_gelu(F.linear(hidden_ND, self.dense.weight), self.dense.bias)


class PostNormLayer(nn.Module):
    """One transformer layer."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = AttentionBlock(shape)
        self.intermediate = FeedForwardIn(shape)
        self.output = Residual(shape.feed_forward, shape)

    def forward(
        self,
        hidden_ND: torch.Tensor,
        packing: Packing,
        keys_22: torch.Tensor | None,
        kernels: Kernels,
        shows: bool = False,
    ) -> tuple[torch.Tensor, Projected | None]:
        """Return the layer's output [N, D], and its projections where `shows` asks for them.

        Its two dropouts have a key each.
        """
        keys = (None, None) if keys_22 is None else keys_22.unbind(0)
        attended_ND, shown = self.attention(hidden_ND, packing, keys[0], kernels, shows)
        inner_NF = self.intermediate(attended_ND, kernels)
        return self.output(inner_NF, attended_ND, keys[1], kernels), shown
