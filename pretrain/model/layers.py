"""The transformer layers: post-norm as in BERT (arXiv 1810.04805), pre-norm (arXiv 2002.04745).

A post-norm layer normalises after each block. Its modules are nested and named as in transformers'
Bert: `attention.self.query.weight`, `attention.output.LayerNorm.weight`, `output.dense.weight`.

A pre-norm layer normalises before each block. Its residual stream is never normalised, so deep
models train with larger learning rates; one more LayerNorm ends the stack. Its modules are nested
and named as in transformers' MegatronBert: `attention.ln.weight`, `attention.output.dense.weight`,
`ln.weight`. Its sums and LayerNorms are plain operations, which a compiled layer fuses.

Shapes: N tokens with padding in B rows, D width, F width inside the feed-forward block.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain.kernels.dispatch import Kernels
from pretrain.kernels.dropout import keyed_dropout
from pretrain.model.attention import Packing, SelfAttention
from pretrain.model.captured_states import Projected
from pretrain.model.config import BertShape


class Intermediate(nn.Module):
    """The widening half of the feed-forward block, with GELU (its exact form, as BERT's)."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.feed_forward)

    def forward(self, hidden_ND: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """Return [N, F]."""
        return kernels.bias_gelu(F.linear(hidden_ND, self.dense.weight), self.dense.bias)


class ResidualNorm(nn.Module):
    """Projection, dropout, residual addition, LayerNorm: the end of a post-norm block."""

    def __init__(self, inner_width: int, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inner_width, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.rate = shape.dropout

    def forward(
        self,
        inner: torch.Tensor,
        block_input_ND: torch.Tensor,
        keys_B2: torch.Tensor | None,
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
            keys_B2=keys_B2,
        )


class PostNormAttention(nn.Module):
    """Self-attention, residual, LayerNorm."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.self = SelfAttention(shape.width, shape.heads)
        self.output = ResidualNorm(shape.width, shape)

    def forward(
        self,
        hidden_ND: torch.Tensor,
        packing: Packing,
        keys_B2: torch.Tensor | None,
        kernels: Kernels,
        return_projections: bool,
    ) -> tuple[torch.Tensor, Projected | None]:
        """Return the block's output [N, D], and its projections if requested."""
        attended_ND, projected = self.self(hidden_ND, packing, return_projections)
        return self.output(attended_ND, hidden_ND, keys_B2, kernels), projected


class PostNormLayer(nn.Module):
    """One layer of BERT."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = PostNormAttention(shape)
        self.intermediate = Intermediate(shape)
        self.output = ResidualNorm(shape.feed_forward, shape)

    def forward(
        self,
        hidden_ND: torch.Tensor,
        packing: Packing,
        keys_2B2: torch.Tensor | None,
        kernels: Kernels,
        return_projections: bool = False,
    ) -> tuple[torch.Tensor, Projected | None]:
        """Return the layer's output [N, D], and its projections if requested.

        Each of the two dropouts has keys of its own.
        """
        keys = (None, None) if keys_2B2 is None else keys_2B2.unbind(0)
        attended_ND, projected = self.attention(
            hidden_ND, packing, keys[0], kernels, return_projections
        )
        inner_NF = self.intermediate(attended_ND, kernels)
        return self.output(inner_NF, attended_ND, keys[1], kernels), projected


class Residual(nn.Module):
    """Projection, dropout, residual addition: the end of a pre-norm block."""

    def __init__(self, inner_width: int, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inner_width, shape.width)
        self.rate = shape.dropout

    def forward(
        self, inner: torch.Tensor, block_input_ND: torch.Tensor, keys_B2: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the block's output [N, D]."""
        return keyed_dropout(self.dense(inner), self.rate, keys_B2) + block_input_ND


class PreNormAttention(nn.Module):
    """LayerNorm, self-attention, residual."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.self = SelfAttention(shape.width, shape.heads)
        self.output = Residual(shape.width, shape)

    def forward(
        self,
        hidden_ND: torch.Tensor,
        packing: Packing,
        keys_B2: torch.Tensor | None,
        return_projections: bool,
    ) -> tuple[torch.Tensor, Projected | None]:
        """Return the block's output [N, D], and its projections if requested."""
        attended_ND, projected = self.self(self.ln(hidden_ND), packing, return_projections)
        return self.output(attended_ND, hidden_ND, keys_B2), projected


class PreNormLayer(nn.Module):
    """One layer of a BERT whose blocks normalise their inputs."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = PreNormAttention(shape)
        self.ln = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.intermediate = Intermediate(shape)
        self.output = Residual(shape.feed_forward, shape)

    def forward(
        self,
        hidden_ND: torch.Tensor,
        packing: Packing,
        keys_2B2: torch.Tensor | None,
        kernels: Kernels,
        return_projections: bool = False,
    ) -> tuple[torch.Tensor, Projected | None]:
        """Return the layer's output [N, D], and its projections if requested.

        Each of the two dropouts has keys of its own.
        """
        keys = (None, None) if keys_2B2 is None else keys_2B2.unbind(0)
        attended_ND, projected = self.attention(hidden_ND, packing, keys[0], return_projections)
        inner_NF = self.intermediate(self.ln(attended_ND), kernels)
        return self.output(inner_NF, attended_ND, keys[1]), projected
