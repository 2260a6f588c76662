"""MLM and NSP losses, the objectives of BERT (arXiv 1810.04805, section 3.1).

    mlm  Σ_m -log softmax(z(m))[label(m)]   over masked tokens m and the vocabulary
    nsp  Σ_s -log softmax(z(s))[label(s)]   over samples s of two segments and two classes

Shapes: M masked tokens, D width, S samples, V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.kernels.linear_cross_entropy import CrossEntropy
from pretrain.losses.term import Term
from pretrain.model import Outputs

# Suffix of the tags of each direction; the second one reads the text reversed.
DIRECTIONS = ("", "_reversed")


def pretraining_terms(outputs: Outputs, batch: Batch) -> list[Term]:
    """Return the terms of BERT's own loss, the sum of both objectives."""
    terms = mlm_terms(mlm_losses(outputs, batch), weight=1.0)
    if outputs.nsp_logits_S2 is not None:
        terms += nsp_terms(outputs.nsp_logits_S2, batch, weight=1.0)
    return terms


def mlm_losses(outputs: Outputs, batch: Batch) -> list[CrossEntropy]:
    """Return the MLM loss of each direction, without the logits in memory."""
    parts = (x.chunk(batch.directions) for x in (outputs.masked_MD, batch.mlm_labels))
    return [outputs.mlm_loss(*part) for part in zip(*parts, strict=True)]


def mlm_terms(losses: Sequence[CrossEntropy], weight: float) -> list[Term]:
    """Return the MLM loss and accuracy, per masked token, of each direction."""
    terms = []
    for (loss, correct), name in zip(losses, DIRECTIONS, strict=False):
        terms.append(Term(f"loss/mlm{name}", loss, "masked", weight))
        terms.append(Term(f"accuracy/mlm{name}", correct, "masked"))
    return terms


def nsp_terms(logits_S2: torch.Tensor, batch: Batch, weight: float) -> list[Term]:
    """Return the NSP loss and accuracy, per sample."""
    loss, correct = cross_entropy(logits_S2, batch.nsp_labels)
    return [Term("loss/nsp", loss, "samples", weight), Term("accuracy/nsp", correct, "samples")]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> CrossEntropy:
    """Return the summed -log p(label) and the number of labels with the largest logit, in fp32.

    Args:
        logits: [N, classes].
        labels: [N]; those equal to `IGNORE_INDEX` are left out.
    """
    loss = F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=IGNORE_INDEX)
    return CrossEntropy(loss, (logits.detach().argmax(dim=-1) == labels).sum().float())
