"""Linear layer and cross-entropy in one: the decoder of the MLM head, its loss and accuracy.

Shapes: M masked tokens, D width, V vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from pretrain.data.batch import IGNORE_INDEX


class CrossEntropy(NamedTuple):
    """Sums over all tokens that have a label; scalars in fp32."""

    loss: torch.Tensor  # Σ -log p(label)
    correct: torch.Tensor  # tokens whose label has the largest logit; no gradient


def linear_cross_entropy(
    hidden_MD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor, labels_M: torch.Tensor
) -> CrossEntropy:
    """Return the loss of the logits `hidden @ weight.T + bias`, summed in fp32.

    Args:
        hidden_MD: the input of the decoder.
        weight_VD, bias_V: the decoder.
        labels_M: int64; `IGNORE_INDEX` excludes a token.
    """
    logits_MV = F.linear(hidden_MD, weight_VD, bias_V).float()
    loss = F.cross_entropy(logits_MV, labels_M, reduction="sum", ignore_index=IGNORE_INDEX)
    correct = (logits_MV.detach().argmax(dim=-1) == labels_M).sum().float()
    return CrossEntropy(loss, correct)
