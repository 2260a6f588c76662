"""BERT for pre-training: the encoder, the MLM head and the NSP head.

Each head runs only at the positions that have labels, which saves most of its cost: the MLM head at
masked tokens (about 15 % of all), the NSP head at the [CLS] of each sample.
Shapes: N tokens with padding, D width, M masked tokens, S samples, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from pretrain.data.batch import Batch
from pretrain.kernels.dispatch import Kernels
from pretrain.kernels.linear_cross_entropy import CrossEntropy
from pretrain.model.backend import Backend
from pretrain.model.captured_states import NO_CAPTURE, Capture, States, no_states
from pretrain.model.config import BertShape
from pretrain.model.encoder import Encoder

_STD = 0.02  # of initial weights, before the tails are left out

Transformation = Callable[[torch.Tensor], torch.Tensor]
Result = TypeVar("Result")  # of an objective: loss terms, see losses/term.py


def _unchanged(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The results of a forward pass, from which objectives compute their losses."""

    hidden_ND: torch.Tensor  # last hidden states
    masked_MD: torch.Tensor  # at masked tokens, after the transform of the MLM head
    nsp_logits_S2: torch.Tensor | None  # None for a model without an NSP head
    decoder_VD: torch.Tensor  # the decoder's weight, that of the word embeddings where it is tied
    decoder_bias_V: torch.Tensor
    kernels: Kernels
    states: States = field(default_factory=no_states)  # of the captured layers
    transform: Transformation = _unchanged  # that of the MLM head, for other hidden states
    projections: Mapping[str, Transformation] = field(default_factory=dict)  # of a student, by name

    @cached_property
    def mlm_logits_MV(self) -> torch.Tensor:
        """Logits over the vocabulary at masked tokens, computed at the first access."""
        return F.linear(self.masked_MD, self.decoder_VD, self.decoder_bias_V)

    def mlm_loss(self, masked_MD: torch.Tensor, labels_M: torch.Tensor) -> CrossEntropy:
        """Return the summed MLM loss of (some of) the masked tokens, without storing the logits."""
        return self.kernels.linear_cross_entropy(
            masked_MD, self.decoder_VD, self.decoder_bias_V, labels_M
        )


class Transform(nn.Module):
    """Dense, GELU, LayerNorm: the transform before the decoder."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)

    def forward(self, hidden_MD: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """Return [M, D]."""
        projected_MD = F.linear(hidden_MD, self.dense.weight)
        return self.LayerNorm(kernels.bias_gelu(projected_MD, self.dense.bias))


class MlmHead(nn.Module):
    """The MLM head; its decoder's weight is that of the word embeddings, unless it is not tied."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.transform = Transform(shape)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))
        if not shape.tied_decoder:
            self.decoder = nn.Linear(shape.width, shape.vocab_size, bias=False)


class Heads(nn.Module):
    """The two pre-training heads, named as in transformers."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.predictions = MlmHead(shape)
        if shape.next_sentence:
            self.seq_relationship = nn.Linear(shape.width, 2)


class Bert(nn.Module):
    """BERT with its pre-training heads, over packed rows.

    Attributes:
        backend: how it is computed; the plain references unless it is set.
        projections: of a student, from its width to its teacher's, by name; they are trained and
            saved with it but not published.
    """

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.shape = shape
        self.backend = Backend()
        self.bert = Encoder(shape)
        self.cls = Heads(shape)
        self.projections = nn.ModuleDict()

    def forward(
        self,
        batch: Batch,
        objective: Callable[[Outputs, Batch], Result] | None = None,
        dropout_keys: torch.Tensor | None = None,
        capture: Capture = NO_CAPTURE,
    ) -> Outputs | Result:
        """Compute one micro-batch.

        Args:
            batch: on the device of the model.
            objective: turns outputs into loss terms. It is called inside the forward pass, where
                ZeRO-3 has gathered the decoder's weights, and its terms start the backward pass.
            dropout_keys: int32 [2 * layers + 1, B, 2], see `dropout_keys`; None drops nothing.
            capture: the layers whose states the outputs hold.

        Returns:
            the terms of the objective, or the outputs without one.
        """
        hidden_ND, states = self.bert(batch, dropout_keys, self.backend, capture, self.shape.layers)
        kernels, predictions = self.backend.kernels, self.cls.predictions
        tied = self.shape.tied_decoder
        decoder = self.bert.embeddings.word_embeddings if tied else predictions.decoder
        nsp_logits_S2 = None
        if self.shape.next_sentence:
            cls_SD = hidden_ND.index_select(0, batch.cls_positions)
            nsp_logits_S2 = self.cls.seq_relationship(self.bert.pooler(cls_SD))
        outputs = Outputs(
            hidden_ND=hidden_ND,
            # Not `hidden_ND[masked]`: its gradient sorts the indices, of which index 0, as padding,
            # is repeated many times.
            masked_MD=predictions.transform(
                hidden_ND.index_select(0, batch.masked_positions), kernels
            ),
            nsp_logits_S2=nsp_logits_S2,
            decoder_VD=decoder.weight,
            decoder_bias_V=predictions.bias,
            kernels=kernels,
            states=states,
            transform=partial(predictions.transform, kernels=kernels),
            projections=dict(self.projections.items()),
        )
        return outputs if objective is None else objective(outputs, batch)

    def states(self, batch: Batch, capture: Capture) -> States:
        """Return the captured states alone; layers above the highest captured one are skipped."""
        _, states = self.bert(batch, None, self.backend, capture, capture.last)
        return states

    def detach_unused_pooler(self) -> dict[str, torch.Tensor]:
        """Remove a pooler that no head reads, and return its weights by their full names.

        No loss trains it, and an optimizer that had it would still decay it.
        """
        if not self.shape.pooler or not hasattr(self.bert, "pooler"):
            return {}
        weights = self.bert.pooler.state_dict(prefix="bert.pooler.")
        del self.bert.pooler
        return weights

    def keep_layers(self, count: int) -> None:
        """Remove the layers above the first `count`, whose states are not read."""
        del self.bert.encoder.layer[count:]

    def count_parameters(self, has_heads: bool = True) -> int:
        """Return the number of parameters that are published, tied ones counted once."""
        published = (self.bert, self.cls) if has_heads else (self.bert,)
        return sum(parameter.numel() for part in published for parameter in part.parameters())


def initialise(model: Bert, seed: int) -> None:
    """Draw initial weights as BERT does: truncated normal, zero biases, unit LayerNorm.

    N(0, 0.02) without what lies beyond two standard deviations, as google-research/bert's
    modeling.py (`truncated_normal_initializer`).

    The same seed gives the same weights on every rank, on any device. A pooler that no head reads
    is left as it is: it comes from elsewhere, and must not move the draws of other weights.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = (
        m for name, m in model.named_modules() if not model.shape.pooler or "pooler" not in name
    )
    for module in drawn:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            weights = nn.init.trunc_normal_(
                torch.empty(module.weight.shape), 0.0, _STD, -2 * _STD, 2 * _STD, generator
            )
            module.weight.data.copy_(weights)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()
