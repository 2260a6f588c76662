"""Terms of soft targets, with the hard loss of the same words in the same pass over the vocabulary.

Shapes: N places, M masked tokens, D width, V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.distil.teacher_cache.targets import Kind, Targets, cached_soft_target_sum
from pretrain.kernels.soft_cross_entropy import (
    Divergence,
    Head,
    SoftCrossEntropy,
    divergences,
    logits_of,
)
from pretrain.losses.mlm_nsp import DIRECTIONS, cross_entropy
from pretrain.losses.term import Term
from pretrain.model import Outputs


class SoftLoss(NamedTuple):
    """What is asked for in one step.

    Attributes:
        temperature, divergence, weight: of the soft targets.
        hard_weight: of the masked words in the same pass; None leaves them out.
    """

    temperature: float
    divergence: Divergence
    weight: float
    hard_weight: float | None = None


def soft_terms(
    loss: SoftLoss, outputs: Outputs, taught: Sequence[Outputs], batch: Batch
) -> list[Term]:
    """Return the soft targets at masked tokens and, with a weight, the masked words too.

    Args:
        loss: what is asked for.
        outputs: of the student.
        taught: of its teachers.
        batch: what all were given.
    """
    heads = _by_direction(outputs, taught, batch)
    parts = [_sums(loss, outputs, own, labels_M) for own, labels_M in heads]
    soft = torch.stack([part.soft for part in parts]).sum()
    total = torch.stack([part.total for part in parts]).sum()
    terms = [Term("loss/soft_targets", soft, "masked", loss.weight)]
    if loss.hard_weight is not None:
        for part, name in zip(parts, DIRECTIONS, strict=False):
            terms.append(Term(f"loss/mlm{name}", part.hard, "masked", loss.hard_weight))
            terms.append(Term(f"accuracy/mlm{name}", part.correct, "masked"))
    return _carry_gradient(total, terms)


def soft_terms_of_all(
    loss: SoftLoss, outputs: Outputs, taught: Sequence[Outputs], batch: Batch
) -> list[Term]:
    """Return the soft targets at all real tokens; arguments as of `soft_terms`."""
    heads = [head_of(out, out.transform(out.hidden_ND)) for out in (outputs, *taught)]
    # Nobody asks for the words of tokens that are shown: any label will do, at a weight of 0.
    labels_N = torch.where(batch.sample_ids > 0, 0, IGNORE_INDEX)
    sums = _sums(loss, outputs, heads, labels_N)
    return _carry_gradient(
        sums.total, [Term("loss/soft_targets", sums.soft, "tokens", loss.weight)]
    )


def cached_soft_terms(loss: SoftLoss, outputs: Outputs, batch: Batch, kind: Kind) -> list[Term]:
    """Return the soft targets at masked tokens, from the answers that the batch brings.

    Args:
        loss: of the soft targets alone, at the temperature of the answers.
        outputs: of the student.
        batch: with stored answers.
        kind: of these.
    """
    assert batch.cached_ids is not None
    assert batch.cached_values is not None and batch.cached_rest is not None
    targets = Targets(batch.cached_ids, batch.cached_values, batch.cached_rest)
    logits_MV = logits_of(head_of(outputs, outputs.masked_MD))
    soft = cached_soft_target_sum(logits_MV, targets, kind, loss.temperature)
    return [Term("loss/soft_targets", soft, "masked", loss.weight)]


def _sums(
    loss: SoftLoss, outputs: Outputs, heads: Sequence[Head], labels_M: torch.Tensor
) -> SoftCrossEntropy:
    """Return the sums of one direction; the student's head comes first."""
    student, *teachers = heads
    if len(teachers) > 1:
        return _sums_of_several(loss, student, teachers, labels_M)
    return outputs.kernels.soft_cross_entropy(
        student,
        teachers[0],
        labels_M,
        temperature=loss.temperature,
        divergence=loss.divergence,
        soft_weight=loss.weight,
        hard_weight=loss.hard_weight or 0.0,
    )


def _sums_of_several(
    loss: SoftLoss, student: Head, teachers: Sequence[Head], labels_M: torch.Tensor
) -> SoftCrossEntropy:
    """Return the same against the mean of the teachers' probabilities; no kernel has it fused."""
    logits_MV = logits_of(student)
    taught_MV = mean_logits([logits_of(teacher) / loss.temperature for teacher in teachers])
    divergence_M = divergences(logits_MV / loss.temperature, taught_MV, loss.divergence)
    soft = loss.temperature**2 * divergence_M.where(labels_M != IGNORE_INDEX, 0.0).sum()
    hard, correct = cross_entropy(logits_MV, labels_M)
    total = loss.weight * soft + (loss.hard_weight or 0.0) * hard
    return SoftCrossEntropy(total, soft.detach(), hard.detach(), correct)


def mean_logits(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return logits whose probabilities are the means of those of others, in log space."""
    stacked = torch.stack([each.log_softmax(dim=-1) for each in logits])
    return stacked.logsumexp(dim=0) - math.log(len(logits))


def head_of(outputs: Outputs, hidden_MD: torch.Tensor) -> Head:
    """Return what the logits of hidden states, made ready for the vocabulary, are made of."""
    return Head(hidden_MD, outputs.decoder_VD, outputs.decoder_bias_V)


def _by_direction(
    outputs: Outputs, taught: Sequence[Outputs], batch: Batch
) -> list[tuple[list[Head], torch.Tensor]]:
    """Return the heads at masked tokens, the student's first, and labels, for each direction."""
    parts = [out.masked_MD.chunk(batch.directions) for out in (outputs, *taught)]
    labels = batch.mlm_labels.chunk(batch.directions)
    return [
        ([head_of(out, part[d]) for out, part in zip((outputs, *taught), parts, strict=True)], own)
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
