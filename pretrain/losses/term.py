"""A term: one sum of a micro-batch, for the loss or a metric, and the count that divides it.

Objectives return sums, never means. The loop divides each sum once by its count over all ranks
and all micro-batches of the step, so that the loss and its gradient do not depend on how a global
batch is split.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch

from pretrain.data.batch import Batch
from pretrain.model.bert import Outputs


class Term(NamedTuple):
    """A sum over a micro-batch.

    A tuple, because DeepSpeed searches only tuples, lists and dictionaries for the tensors that
    start the backward pass; without them its bf16 optimizer counts micro-batches twice.

    Attributes:
        tag: its name in metrics and TensorBoard, such as `loss/mlm`.
        total: the sum, a scalar in fp32.
        per: the count of a `Batch` that it is divided by.
        weight: its factor in the loss; 0 for metrics that are only reported.
    """

    tag: str
    total: torch.Tensor
    per: Literal["masked", "samples", "tokens"]
    weight: float = 0.0


# Maps the outputs of a micro-batch to terms; called inside the forward pass of the model.
Objective = Callable[[Outputs, Batch], list[Term]]


def normalised_loss(terms: Sequence[Term], counts: Mapping[str, int]) -> torch.Tensor:
    """Return the weighted loss of a micro-batch: each sum over its global count."""
    # A scheduled weight of 0 still gives a gradient, of 0: ZeRO needs one for every parameter.
    shares = [
        term.total * (term.weight / max(1, counts[term.per]))
        for term in terms
        if term.weight or term.total.requires_grad
    ]
    return torch.stack(shares).sum()


def normalised_values(terms: Sequence[Term], counts: Mapping[str, int]) -> torch.Tensor:
    """Return this micro-batch's contribution to the mean of each term, detached, in fp64.

    Summed over micro-batches and ranks they are the means.
    """
    values = [term.total.detach() / max(1, counts[term.per]) for term in terms]
    return torch.stack(values).to(torch.float64)
