"""BERT for pre-training: the encoder, the masked-word head and the next-sentence head.

Both heads run only where they are needed, which saves most of their cost: the vocabulary head at
masked places (about 15 % of the tokens), the next-sentence head at the [CLS] of each sample.
Shapes: B rows, T tokens a row, D width, M masked tokens, S samples, V vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from pretrain.batches import Batch
from pretrain.model.encoder import Encoder
from pretrain.model.shape import BertShape


class Outputs(NamedTuple):
    """What a forward pass gives the objectives.

    A tuple, because DeepSpeed looks for the tensors that begin the backward pass in tuples,
    lists and dictionaries only; without them its bf16 optimizer counts micro-batches twice.
    """

    hidden_BTD: torch.Tensor  # last hidden states
    mlm_logits_MV: torch.Tensor  # at masked places, in the order of `Batch.masked`
    nsp_logits_S2: torch.Tensor | None  # None for a model without that head


class Transform(nn.Module):
    """Dense, GELU, LayerNorm: what stands before the vocabulary."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)

    def forward(self, hidden_MD: torch.Tensor) -> torch.Tensor:
        """Return [M, D]."""
        return self.LayerNorm(F.gelu(self.dense(hidden_MD)))


class WordPredictions(nn.Module):
    """Logits over the vocabulary; the decoder's weight is the word embedding itself."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.transform = Transform(shape)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))

    def forward(self, hidden_MD: torch.Tensor, embedding_VD: torch.Tensor) -> torch.Tensor:
        """Return logits [M, V]."""
        return F.linear(self.transform(hidden_MD), embedding_VD, self.bias)


class Heads(nn.Module):
    """The two pre-training heads, named as in transformers."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.predictions = WordPredictions(shape)
        if shape.next_sentence:
            self.seq_relationship = nn.Linear(shape.width, 2)


class Bert(nn.Module):
    """BERT with its pre-training heads, over packed rows."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.shape = shape
        self.bert = Encoder(shape)
        self.cls = Heads(shape)

    def forward(self, batch: Batch) -> Outputs:
        """Compute one micro-batch."""
        hidden_BTD = self.bert(
            batch.input_ids, batch.token_types, batch.positions, batch.sample_ids
        )
        places_ND = hidden_BTD.flatten(0, 1)
        embedding_VD = self.bert.embeddings.word_embeddings.weight
        mlm_logits_MV = self.cls.predictions(places_ND[batch.masked], embedding_VD)
        nsp_logits_S2 = None
        if self.shape.next_sentence:
            nsp_logits_S2 = self.cls.seq_relationship(self.bert.pooler(places_ND[batch.firsts]))
        return Outputs(hidden_BTD, mlm_logits_MV, nsp_logits_S2)

    def count_parameters(self) -> int:
        """Return the number of parameters, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


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
