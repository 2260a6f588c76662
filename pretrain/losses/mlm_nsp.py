"""Masked words and next sentences, the objectives of BERT (arXiv 1810.04805, section 3.1).

Shapes: M masked tokens, D width, S samples, V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.kernels.linear_cross_entropy import CrossEntropy
from pretrain.losses.term import Term
from pretrain.model import Outputs

# What stands after a tag: nothing, or that the text was shown reversed.
DIRECTIONS = ("", "_reversed")


def pretraining_terms(outputs: Outputs, batch: Batch) -> list[Term]:
    """Return the terms of BERT's own loss, the sum of both objectives."""
    terms = mlm_terms(mlm_losses(outputs, batch), weight=1.0)
    if outputs.nsp_logits_S2 is not None:
        terms += nsp_terms(outputs.nsp_logits_S2, batch, weight=1.0)
    return terms


def mlm_losses(outputs: Outputs, batch: Batch) -> list[CrossEntropy]:
    """Return the masked-word loss of each direction, without the logits in memory."""
    parts = _directions(outputs.masked_MD, batch)
    return [outputs.mlm_loss(hidden_MD, labels_M) for hidden_MD, labels_M in parts]


def word_losses_of(logits_MV: torch.Tensor, batch: Batch) -> list[CrossEntropy]:
    """Return the same from logits that are in memory because something else needs them."""
    return [cross_entropy(logits, labels) for logits, labels in _directions(logits_MV, batch)]


def mlm_terms(losses: Sequence[CrossEntropy], weight: float) -> list[Term]:
    """Return the masked-word loss and accuracy, per masked token, of each direction."""
    terms = []
    for (loss, correct), name in zip(losses, DIRECTIONS, strict=False):
        terms.append(Term(f"loss/mlm{name}", loss, "masked", weight))
        terms.append(Term(f"accuracy/mlm{name}", correct, "masked"))
    return terms


def nsp_terms(logits_S2: torch.Tensor, batch: Batch, weight: float) -> list[Term]:
    """Return the next-sentence loss and accuracy, per sample."""
    loss, correct = cross_entropy(logits_S2, batch.nsp_labels)
    return [Term("loss/nsp", loss, "samples", weight), Term("accuracy/nsp", correct, "samples")]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> CrossEntropy:
    """Return the summed -log p(label) and how many labels have the largest logit, in fp32.

    Logits are [N, classes], labels [N]; `IGNORE_INDEX` leaves one out.
    """
    loss = F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=IGNORE_INDEX)
    return CrossEntropy(loss, (logits.detach().argmax(dim=-1) == labels).sum().float())


def _directions(values: torch.Tensor, batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return values at masked places with their labels, for each direction."""
    parts = (x.chunk(batch.directions) for x in (values, batch.mlm_labels))
    return list(zip(*parts, strict=True))
