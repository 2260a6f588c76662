"""Masked words and next sentences, the objectives of BERT (arXiv 1810.04805, section 3.1).

Shapes: M masked tokens, S samples, V vocabulary.
"""

import torch
import torch.nn.functional as F

from pretrain.batches import Batch
from pretrain.model import Outputs
from pretrain.objectives.term import Term

# What stands after a tag: nothing, or that the text was shown reversed.
DIRECTIONS = ("", "_reversed")


def cross_entropy_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed -log p(label), in fp32. Logits are [N, classes], labels [N]."""
    return F.cross_entropy(logits.float(), labels, reduction="sum")


def correct_count(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return how many labels have the largest logit, as an fp32 scalar."""
    return (logits.detach().argmax(dim=-1) == labels).sum().float()


def masked_word_terms(logits_MV: torch.Tensor, batch: Batch, weight: float) -> list[Term]:
    """Return the masked-word loss and accuracy, per masked token, of each direction."""
    terms = []
    logits, labels = (x.chunk(batch.directions) for x in (logits_MV, batch.mlm_labels))
    for own_logits, own_labels, name in zip(logits, labels, DIRECTIONS, strict=False):
        loss = cross_entropy_sum(own_logits, own_labels)
        correct = correct_count(own_logits, own_labels)
        terms.append(Term(f"loss/mlm{name}", loss, "masked", weight))
        terms.append(Term(f"accuracy/mlm{name}", correct, "masked"))
    return terms


def next_sentence_terms(logits_S2: torch.Tensor, batch: Batch, weight: float) -> list[Term]:
    """Return the next-sentence loss and accuracy, per sample."""
    loss = cross_entropy_sum(logits_S2, batch.nsp_labels)
    correct = correct_count(logits_S2, batch.nsp_labels)
    return [Term("loss/nsp", loss, "samples", weight), Term("accuracy/nsp", correct, "samples")]


def pretraining_terms(outputs: Outputs, batch: Batch) -> list[Term]:
    """Return the terms of BERT's own loss, the sum of both objectives."""
    terms = masked_word_terms(outputs.mlm_logits_MV, batch, weight=1.0)
    if outputs.nsp_logits_S2 is not None:
        terms += next_sentence_terms(outputs.nsp_logits_S2, batch, weight=1.0)
    return terms
