"""The BERT encoder (arXiv 1810.04805): embeddings, then post-LN transformer layers.

Modules are nested and named as in transformers, so that a state dict of ours is one of theirs:
`embeddings.word_embeddings.weight`, `encoder.layer.0.attention.self.query.weight`, and so on.
Shapes: B rows, T tokens a row, D width.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain.model.attention import SelfAttention, same_sample_mask
from pretrain.model.shape import BertShape


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalised."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.width, shape.pad_id)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        self.token_type_embeddings = nn.Embedding(2, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self, input_ids_BT: torch.Tensor, token_types_BT: torch.Tensor, positions_BT: torch.Tensor
    ) -> torch.Tensor:
        """Return embeddings [B, T, D]."""
        embedded = (
            self.word_embeddings(input_ids_BT)
            + self.token_type_embeddings(token_types_BT)
            + self.position_embeddings(positions_BT)
        )
        return self.dropout(self.LayerNorm(embedded))


class Residual(nn.Module):
    """Projection, dropout, addition to the block's input, LayerNorm: the end of both blocks."""

    def __init__(self, inner_width: int, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inner_width, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, inner: torch.Tensor, block_input_BTD: torch.Tensor) -> torch.Tensor:
        """Return the block's output [B, T, D]."""
        return self.LayerNorm(self.dropout(self.dense(inner)) + block_input_BTD)


class AttentionBlock(nn.Module):
    """Self-attention with its residual."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.self = SelfAttention(shape.width, shape.heads)
        self.output = Residual(shape.width, shape)

    def forward(self, hidden_BTD: torch.Tensor, mask_B1TT: torch.Tensor) -> torch.Tensor:
        """Return the block's output [B, T, D]."""
        return self.output(self.self(hidden_BTD, mask_B1TT), hidden_BTD)


class FeedForwardIn(nn.Module):
    """The widening half of the feed-forward block, with GELU (its exact form, as BERT's)."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.feed_forward)

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Return [B, T, feed_forward]."""
        return F.gelu(self.dense(hidden_BTD))


class Layer(nn.Module):
    """One transformer layer."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = AttentionBlock(shape)
        self.intermediate = FeedForwardIn(shape)
        self.output = Residual(shape.feed_forward, shape)

    def forward(self, hidden_BTD: torch.Tensor, mask_B1TT: torch.Tensor) -> torch.Tensor:
        """Return the layer's output [B, T, D]."""
        attended = self.attention(hidden_BTD, mask_B1TT)
        return self.output(self.intermediate(attended), attended)


class LayerStack(nn.Module):
    """All layers in order."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(shape) for _ in range(shape.layers))

    def forward(self, hidden_BTD: torch.Tensor, mask_B1TT: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states [B, T, D]."""
        for layer in self.layer:
            hidden_BTD = layer(hidden_BTD, mask_B1TT)
        return hidden_BTD


class Encoder(nn.Module):
    """Embeddings and layers: packed rows in, last hidden states out."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = LayerStack(shape)
        if shape.next_sentence:
            self.pooler = Pooler(shape)

    def forward(
        self,
        input_ids_BT: torch.Tensor,
        token_types_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        sample_ids_BT: torch.Tensor,
    ) -> torch.Tensor:
        """Return the last hidden states [B, T, D]."""
        embedded_BTD = self.embeddings(input_ids_BT, token_types_BT, positions_BT)
        return self.encoder(embedded_BTD, same_sample_mask(sample_ids_BT))


class Pooler(nn.Module):
    """The transformed state of [CLS], from which next sentences are judged."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.width)

    def forward(self, first_SD: torch.Tensor) -> torch.Tensor:
        """Return [S, D] for the states of S [CLS] tokens."""
        return torch.tanh(self.dense(first_SD))
