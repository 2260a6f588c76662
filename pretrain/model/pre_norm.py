"""A transformer layer that normalises before each block (arXiv 2002.04745).

Its residual stream is never normalised, so deep models train with larger learning rates; one more
LayerNorm ends the stack. Modules are nested and named as in transformers' MegatronBert:
`attention.ln.weight`, `attention.output.dense.weight`, `ln.weight`, and so on.
Sums and LayerNorms here are plain operations, which a compiled layer fuses.
Shapes: N places, D width, F width inside the feed-forward block.
"""

import torch
from torch import nn

from pretrain.kernels.dispatch import Kernels
from pretrain.kernels.dropout import keyed_dropout
from pretrain.model.attention import Packing, SelfAttention
from pretrain.model.captured_states import Projected
from pretrain.model.config import BertShape
from pretrain.model.post_norm import FeedForwardIn


class PlainResidual(nn.Module):
    """Projection, dropout, addition to the block's input: the end of both blocks."""

    def __init__(self, inner_width: int, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inner_width, shape.width)
        self.rate = shape.dropout

    def forward(
        self, inner: torch.Tensor, block_input_ND: torch.Tensor, key: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the block's output [N, D]."""
        return keyed_dropout(self.dense(inner), self.rate, key) + block_input_ND


class PreNormAttentionBlock(nn.Module):
    """LayerNorm, self-attention and its residual."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.self = SelfAttention(shape.width, shape.heads)
        self.output = PlainResidual(shape.width, shape)

    def forward(
        self, hidden_ND: torch.Tensor, packing: Packing, key: torch.Tensor | None, shows: bool
    ) -> tuple[torch.Tensor, Projected | None]:
        """Return the block's output [N, D], and its projections where `shows` asks for them."""
        attended_ND, shown = self.self(self.ln(hidden_ND), packing, shows)
        return self.output(attended_ND, hidden_ND, key), shown


class PreNormLayer(nn.Module):
    """One transformer layer."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = PreNormAttentionBlock(shape)
        self.ln = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.intermediate = FeedForwardIn(shape)
        self.output = PlainResidual(shape.feed_forward, shape)

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
        attended_ND, shown = self.attention(hidden_ND, packing, keys[0], shows)
        inner_NF = self.intermediate(self.ln(attended_ND), kernels)
        return self.output(inner_NF, attended_ND, keys[1]), shown
