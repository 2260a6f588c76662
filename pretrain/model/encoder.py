"""The BERT encoder (arXiv 1810.04805): embeddings, then transformer layers.

Modules are nested and named as in transformers, so that a state dict of ours is one of theirs:
`embeddings.word_embeddings.weight`, `encoder.layer.0.attention.self.query.weight`, and so on.
Tensors are flat: only attention separates rows.
Shapes: N tokens with padding in B rows, D width, L layers, S samples, V vocabulary.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pretrain.data.batch import Batch
from pretrain.kernels.dispatch import Kernels
from pretrain.kernels.dropout import keyed_dropout
from pretrain.model.attention import Packing, make_packing
from pretrain.model.backend import Backend
from pretrain.model.captured_states import Capture, States
from pretrain.model.config import BertShape
from pretrain.model.layers import PostNormLayer, PreNormLayer


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings; normalised unless the layers do it first."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.width, shape.pad_id)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        if shape.token_types:
            self.token_type_embeddings = nn.Embedding(2, shape.width)
        else:
            # A table of zeros for the fused kernel: neither trained nor saved.
            self.register_buffer("zero_types_2D", torch.zeros(2, shape.width), persistent=False)
        self.has_token_types = shape.token_types
        self.LayerNorm: nn.LayerNorm | None = None
        if shape.norm == "post":
            self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.rate = shape.dropout

    def forward(self, batch: Batch, keys_B2: torch.Tensor | None, kernels: Kernels) -> torch.Tensor:
        """Return embeddings [N, D]."""
        if self.LayerNorm is None:
            embedded_ND = self.word_embeddings(batch.input_ids)
            if self.has_token_types:
                embedded_ND = embedded_ND + self.token_type_embeddings(batch.token_types)
            embedded_ND = embedded_ND + self.position_embeddings(batch.positions)
            return keyed_dropout(embedded_ND, self.rate, keys_B2)
        word_VD = self.word_embeddings.weight
        # DeepSpeed casts parameters but no buffers; a buffer in fp32 would promote the sum.
        types_2D = (
            self.token_type_embeddings.weight
            if self.has_token_types
            else self.zero_types_2D.to(word_VD.dtype)
        )
        return kernels.embedding_norm(
            batch.input_ids,
            batch.token_types,
            batch.positions,
            word_VD,
            types_2D,
            self.position_embeddings.weight,
            self.LayerNorm.weight,
            self.LayerNorm.bias,
            epsilon=self.LayerNorm.eps,
            rate=self.rate,
            keys_B2=keys_B2,
        )


class LayerStack(nn.Module):
    """All layers in order, and the LayerNorm that ends a stack of pre-norm layers."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        kind = PostNormLayer if shape.norm == "post" else PreNormLayer
        self.layer = nn.ModuleList(kind(shape) for _ in range(shape.layers))
        self.depth = shape.layers  # a truncated teacher holds fewer
        self.ln: nn.LayerNorm | None = None
        if shape.norm == "pre":
            self.ln = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)

    def forward(
        self,
        hidden_ND: torch.Tensor,
        packing: Packing,
        keys_L2B2: torch.Tensor | None,
        backend: Backend,
        capture: Capture,
        layers: int,
    ) -> tuple[torch.Tensor, States]:
        """Return the hidden states [N, D] after the first `layers`, and the captured states."""
        checkpointed = backend.checkpointed_layers if torch.is_grad_enabled() else 0
        states = States({0: hidden_ND} if 0 in capture.hidden else {}, {})
        for number, layer in enumerate(self.layer[:layers], start=1):
            keys_2B2 = None if keys_L2B2 is None else keys_L2B2[number - 1]
            project = number in capture.attention
            inputs = (hidden_ND, packing, keys_2B2, backend.kernels, project)
            if number <= checkpointed:
                # Keyed dropout drops the same elements again, so no generator state is saved.
                hidden_ND, projected = checkpoint(
                    layer, *inputs, use_reentrant=False, preserve_rng_state=False
                )
            else:
                hidden_ND, projected = layer(*inputs)
            if self.ln is not None and number == self.depth:
                hidden_ND = self.ln(hidden_ND)
            if project:
                states.attention[number] = projected
            if number in capture.hidden:
                states.hidden[number] = hidden_ND
        return hidden_ND, states


class Encoder(nn.Module):
    """Embeddings and layers: packed rows in, hidden states out."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = LayerStack(shape)
        if shape.has_pooler:
            self.pooler = Pooler(shape)

    def forward(
        self,
        batch: Batch,
        dropout_keys: torch.Tensor | None,
        backend: Backend,
        capture: Capture,
        layers: int,
    ) -> tuple[torch.Tensor, States]:
        """Return the hidden states [N, D] after the first `layers`, and the captured states."""
        # The layers' keys come first, so that their addresses are aligned for any kernel.
        layers_L2B2, embeddings_B2 = None, None
        if dropout_keys is not None:
            layers_L2B2 = dropout_keys[:-1].view(-1, 2, *dropout_keys.shape[1:])
            embeddings_B2 = dropout_keys[-1]
        packing = make_packing(
            backend.attention, batch.cu_seqlens, batch.sample_ids, batch.row_tokens
        )
        embedded_ND = self.embeddings(batch, embeddings_B2, backend.kernels)
        return self.encoder(embedded_ND, packing, layers_L2B2, backend, capture, layers)


class Pooler(nn.Module):
    """Dense and tanh over the state of [CLS]: the input of the NSP head."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.width)

    def forward(self, cls_SD: torch.Tensor) -> torch.Tensor:
        """Return [S, D] for the states of S [CLS] tokens."""
        return torch.tanh(self.dense(cls_SD))
