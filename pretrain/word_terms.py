"""Terms of soft targets, with the hard loss of the same words in the same pass over the vocabulary.

Shapes: N places, M masked tokens, D width, V vocabulary.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pretrain.batch import Batch
from pretrain.kernels.linear_cross_entropy import IGNORED
from pretrain.kernels.soft_cross_entropy import (
    Divergence,
    Head,
    SoftCrossEntropy,
    divergences,
)
from pretrain.model import Outputs
from pretrain.objectives.mlm_nsp import DIRECTIONS, cross_entropy
from pretrain.objectives.term import Term
from pretrain.signal.targets import Kind, Targets, soft_target_sum_from_signal


def soft_terms(
    outputs: Outputs,
    taught: Sequence[Outputs],
    batch: Batch,
    temperature: float,
    divergence: Divergence,
    weight: float,
    hard_weight: float | None,
) -> list[Term]:
    """Return the soft targets at masked tokens and, with a weight, the masked words too.

    Args:
        outputs: of the student.
        taught: of its teachers.
        batch: what both were given.
        temperature, divergence: of the soft targets.
        weight: of the soft targets.
        hard_weight: of the masked words; None leaves them out.
    """
    parts = [
        _losses(outputs, heads, labels_M, temperature, divergence, weight, hard_weight or 0.0)
        for heads, labels_M in _by_direction(outputs, taught, batch)
    ]
    soft = torch.stack([part.soft for part in parts]).sum()
    total = torch.stack([part.total for part in parts]).sum()
    terms = [Term("loss/soft_targets", soft, "masked", weight)]
    if hard_weight is not None:
        for part, name in zip(parts, DIRECTIONS, strict=False):
            terms.append(Term(f"loss/mlm{name}", part.hard, "masked", hard_weight))
            terms.append(Term(f"accuracy/mlm{name}", part.correct, "masked"))
    return _carry_gradient(total, terms)


def soft_terms_of_all(
    outputs: Outputs,
    taught: Sequence[Outputs],
    batch: Batch,
    temperature: float,
    divergence: Divergence,
    weight: float,
) -> list[Term]:
    """Return the soft targets at all real tokens; arguments as of `soft_terms`."""
    heads = [_head(out, out.transform(out.hidden_ND)) for out in (outputs, *taught)]
    # Nobody knows the hard labels of tokens that are shown: any will do, at a weight of 0.
    labels_N = torch.where(batch.sample_ids > 0, 0, IGNORED)
    losses = _losses(outputs, heads, labels_N, temperature, divergence, weight, 0.0)
    term = Term("loss/soft_targets", losses.soft, "tokens", weight)
    return _carry_gradient(losses.total, [term])


def stored_soft_terms(
    outputs: Outputs, batch: Batch, kind: Kind, temperature: float, weight: float
) -> list[Term]:
    """Return the soft targets at masked tokens, from the answers that the batch brings.

    Args:
        outputs: of the student.
        batch: with stored answers.
        kind: of these.
        temperature: at which they were given.
        weight: of the soft targets.
    """
    assert batch.taught_ids is not None
    assert batch.taught_values is not None and batch.taught_rest is not None
    targets = Targets(batch.taught_ids, batch.taught_values, batch.taught_rest)
    soft = soft_target_sum_from_signal(outputs.mlm_logits_MV, targets, kind, temperature)
    return [Term("loss/soft_targets", soft, "masked", weight)]


def _losses(
    outputs: Outputs,
    heads: Sequence[Head],
    labels_M: torch.Tensor,
    temperature: float,
    divergence: Divergence,
    weight: float,
    hard_weight: float,
) -> SoftCrossEntropy:
    student, *teachers = heads
    if len(teachers) == 1:
        return outputs.kernels.soft_cross_entropy(
            student,
            teachers[0],
            labels_M,
            temperature=temperature,
            divergence=divergence,
            soft_weight=weight,
            hard_weight=hard_weight,
        )
    return _of_several(student, teachers, labels_M, temperature, divergence, weight, hard_weight)


def _of_several(
    student: Head,
    teachers: Sequence[Head],
    labels_M: torch.Tensor,
    temperature: float,
    divergence: Divergence,
    weight: float,
    hard_weight: float,
) -> SoftCrossEntropy:
    """Return the same against the mean of the teachers' probabilities; no kernel has it fused."""
    logits_MV = F.linear(*student).float()
    taught_MV = mean_logits([F.linear(*teacher).float() / temperature for teacher in teachers])
    asked_M = labels_M != IGNORED
    divergence_M = divergences(logits_MV / temperature, taught_MV, divergence)
    soft = temperature**2 * divergence_M.where(asked_M, 0.0).sum()
    hard, correct = cross_entropy(logits_MV, labels_M)
    total = weight * soft + hard_weight * hard
    return SoftCrossEntropy(total, soft.detach(), hard.detach(), correct)


def mean_logits(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return logits whose probabilities are the means of those of others, in log space."""
    stacked = torch.stack([each.log_softmax(dim=-1) for each in logits])
    return stacked.logsumexp(dim=0) - math.log(len(logits))


def _head(outputs: Outputs, hidden_MD: torch.Tensor) -> Head:
    return Head(hidden_MD, outputs.decoder_VD, outputs.decoder_bias_V)


def _by_direction(
    outputs: Outputs, taught: Sequence[Outputs], batch: Batch
) -> list[tuple[list[Head], torch.Tensor]]:
    """Return the heads at masked tokens, the student's first, and labels, for each direction."""
    parts = [out.masked_MD.chunk(batch.directions) for out in (outputs, *taught)]
    labels = batch.mlm_labels.chunk(batch.directions)
    return [
        ([_head(out, part[d]) for out, part in zip((outputs, *taught), parts, strict=True)], own)
        for d, own in enumerate(labels)
    ]


def _carry_gradient(total: torch.Tensor, terms: list[Term]) -> list[Term]:
    """Hang the gradient of a weighted total on one of the terms that it is the sum of.

    Their values stay what they are. The one that carries it has a weight, if any has.
    """
    number = next((n for n, term in enumerate(terms) if term.weight), 0)
    term = terms[number]
    carried = term.total + (total - total.detach()) / (term.weight or 1.0)
    return [*terms[:number], term._replace(total=carried), *terms[number + 1 :]]
