"""BERT for pre-training: the encoder, the masked-word head and the next-sentence head.

Both heads run only where they are needed, which saves most of their cost: the vocabulary head at
masked places (about 15 % of the tokens), the next-sentence head at the [CLS] of each sample.
Shapes: N places, D width, M masked tokens, S samples, V vocabulary.
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

Transformation = Callable[[torch.Tensor], torch.Tensor]
Result = TypeVar("Result")  # of an objective: loss terms, see losses/term.py


def _unchanged(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a forward pass gives the objectives."""

    hidden_ND: torch.Tensor  # last hidden states
    masked_MD: torch.Tensor  # at masked places, made ready for the vocabulary
    nsp_logits_S2: torch.Tensor | None  # None for a model without that head
    decoder_VD: torch.Tensor  # the word embeddings, which are the decoder's weight
    decoder_bias_V: torch.Tensor
    kernels: Kernels
    states: States = field(default_factory=no_states)  # of the layers that were asked for
    transform: Transformation = _unchanged  # makes hidden states ready for the vocabulary
    projections: Mapping[str, Transformation] = field(default_factory=dict)  # a student's own

    @cached_property
    def mlm_logits_MV(self) -> torch.Tensor:
        """Logits over the vocabulary at masked places; computed when they are asked for."""
        return F.linear(self.masked_MD, self.decoder_VD, self.decoder_bias_V)

    def mlm_loss(self, masked_MD: torch.Tensor, labels_M: torch.Tensor) -> CrossEntropy:
        """Return the summed loss of (some of) the masked tokens, without the logits in memory."""
        return self.kernels.linear_cross_entropy(
            masked_MD, self.decoder_VD, self.decoder_bias_V, labels_M
        )


class Transform(nn.Module):
    """Dense, GELU, LayerNorm: what stands before the vocabulary."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)

    def forward(self, hidden_MD: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """Return [M, D]."""
        projected_MD = F.linear(hidden_MD, self.dense.weight)
        return self.LayerNorm(kernels.bias_gelu(projected_MD, self.dense.bias))


class MlmHead(nn.Module):
    """What is predicted at masked places; the decoder's weight is the word embedding itself."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.transform = Transform(shape)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))


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
            saved with it and are no part of what is published.
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
            objective: turns outputs into terms. It is called in here so that ZeRO-3 has the
                decoder's weights at hand, and its terms begin the backward pass.
            dropout_keys: int32 [2 * layers + 1, 2], see `dropout_keys`; None drops nothing.
            capture: which states of its layers the outputs hold.

        Returns:
            the terms of the objective, or the outputs without one.
        """
        hidden_ND, states = self.bert(batch, dropout_keys, self.backend, capture, self.shape.layers)
        kernels, predictions = self.backend.kernels, self.cls.predictions
        nsp_logits_S2 = None
        if self.shape.next_sentence:
            first_SD = hidden_ND.index_select(0, batch.cls_positions)
            nsp_logits_S2 = self.cls.seq_relationship(self.bert.pooler(first_SD))
        outputs = Outputs(
            hidden_ND=hidden_ND,
            # Not `hidden_ND[masked]`: its gradient sorts places, and place 0 fills the list up.
            masked_MD=predictions.transform(
                hidden_ND.index_select(0, batch.masked_positions), kernels
            ),
            nsp_logits_S2=nsp_logits_S2,
            decoder_VD=self.bert.embeddings.word_embeddings.weight,
            decoder_bias_V=predictions.bias,
            kernels=kernels,
            states=states,
            transform=partial(predictions.transform, kernels=kernels),
            projections=dict(self.projections.items()),
        )
        return outputs if objective is None else objective(outputs, batch)

    def states(self, batch: Batch, capture: Capture) -> States:
        """Return states alone: the highest layer asked for is the last one computed."""
        _, states = self.bert(batch, None, self.backend, capture, capture.last)
        return states

    def count_parameters(self) -> int:
        """Return the number of parameters that are published, tied ones counted once."""
        published = (self.bert, self.cls)
        return sum(parameter.numel() for part in published for parameter in part.parameters())


def initialise(model: Bert, seed: int) -> None:
    """Draw initial weights as BERT does: N(0, 0.02), zero biases, unit LayerNorm.

    The same seed gives the same weights on every rank, on any device.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            weights = torch.empty(module.weight.shape).normal_(0.0, 0.02, generator=generator)
            module.weight.data.copy_(weights)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()
