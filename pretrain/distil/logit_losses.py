"""Terms of the soft-target loss, fused with the MLM loss of the same tokens.

    L = T² · Σ_m D(p_T(m), p_S(m)),   p = softmax(z / T)   (arXiv 1503.02531, section 2)

over masked tokens m, or all real tokens; D is the forward, reverse or symmetric KL divergence, see
kernels/soft_cross_entropy.py. What no fused kernel computes is computed in chunks of tokens.
Shapes: N positions, M masked tokens, D width, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch

from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.distil.teacher_cache.targets import Kind, Targets, cached_soft_target_sum
from pretrain.kernels.soft_cross_entropy import (
    Divergence,
    Head,
    SoftCrossEntropy,
    divergences,
    logits_of,
    soft_cross_entropy,
)
from pretrain.losses.mlm_nsp import DIRECTIONS, cross_entropy
from pretrain.losses.term import Term
from pretrain.losses.token_chunks import sums_over_chunks
from pretrain.model import Outputs


class SoftLoss(NamedTuple):
    """Options of the soft-target loss in one step.

    Attributes:
        temperature, divergence, weight: of the soft targets.
        hard_weight: of the MLM loss computed in the same pass; None leaves it out.
    """

    temperature: float
    divergence: Divergence
    weight: float
    hard_weight: float | None = None

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of `soft_cross_entropy`."""
        return {
            "temperature": self.temperature,
            "divergence": self.divergence,
            "soft_weight": self.weight,
            "hard_weight": self.hard_weight or 0.0,
        }


def soft_terms(
    loss: SoftLoss, outputs: Outputs, teacher_outputs: Sequence[Outputs], batch: Batch
) -> list[Term]:
    """Return the soft-target term at masked tokens and, with a hard weight, the MLM terms.

    Args:
        loss: options.
        outputs: of the student.
        teacher_outputs: of each teacher.
        batch: input of all models.
    """
    heads = _heads_by_direction(outputs, teacher_outputs, batch)
    labels = batch.mlm_labels.chunk(batch.directions)
    parts = [_sums(loss, outputs, *part) for part in zip(heads, labels, strict=True)]
    soft = torch.stack([part.soft for part in parts]).sum()
    total = torch.stack([part.total for part in parts]).sum()
    terms = [Term("loss/soft_targets", soft, "masked", loss.weight)]
    if loss.hard_weight is not None:
        for part, name in zip(parts, DIRECTIONS, strict=False):
            terms.append(Term(f"loss/mlm{name}", part.hard, "masked", loss.hard_weight))
            terms.append(Term(f"accuracy/mlm{name}", part.correct, "masked"))
    return _attach_gradient(total, terms)


def soft_terms_of_all_tokens(
    loss: SoftLoss, outputs: Outputs, teacher_outputs: Sequence[Outputs], batch: Batch
) -> list[Term]:
    """Return the soft-target term at all real tokens; arguments as of `soft_terms`."""
    heads = [mlm_head(out, out.transform(out.hidden_ND)) for out in (outputs, *teacher_outputs)]
    # The hard loss has a weight of 0 here, so any label but IGNORE_INDEX selects a token.
    labels_N = torch.where(batch.sample_ids > 0, 0, IGNORE_INDEX)
    sums = _sums(loss, outputs, heads, labels_N)
    term = Term("loss/soft_targets", sums.soft, "tokens", loss.weight)
    return _attach_gradient(sums.total, [term])


def cached_soft_terms(loss: SoftLoss, outputs: Outputs, batch: Batch, kind: Kind) -> list[Term]:
    """Return the soft-target term at masked tokens, from the cached targets of a batch.

    Args:
        loss: options, at the temperature of the cache and without a hard weight.
        outputs: of the student.
        batch: with cached soft targets.
        kind: of the targets.
    """
    assert batch.cached_ids is not None
    assert batch.cached_values is not None and batch.cached_rest is not None
    targets = Targets(batch.cached_ids, batch.cached_values, batch.cached_rest)

    def compute(student: Head, chunk: slice) -> list[torch.Tensor]:
        part = Targets(*(x[chunk] for x in targets))
        return [cached_soft_target_sum(logits_of(student), part, kind, loss.temperature)]

    (soft,) = sums_over_chunks(compute, mlm_head(outputs, outputs.masked_MD))
    return [Term("loss/soft_targets", soft, "masked", loss.weight)]


def mean_logits(logits: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return logits whose probabilities are the means of those of others, in log space.

    Two of them are in memory at a time. A constant of all tokens, the logarithm of their number, is
    left out.
    """
    return reduce(torch.logaddexp, (each.log_softmax(dim=-1) for each in logits))


def mlm_head(outputs: Outputs, hidden_MD: torch.Tensor) -> Head:
    """Return the MLM head of a model, applied to transformed hidden states."""
    return Head(hidden_MD, outputs.decoder_VD, outputs.decoder_bias_V)


def _heads_by_direction(
    outputs: Outputs, teacher_outputs: Sequence[Outputs], batch: Batch
) -> list[list[Head]]:
    """Return for each direction the heads at masked tokens, the student's first."""
    models = (outputs, *teacher_outputs)
    parts = zip(*(out.masked_MD.chunk(batch.directions) for out in models), strict=True)
    return [[mlm_head(*pair) for pair in zip(models, part, strict=True)] for part in parts]


def _sums(
    loss: SoftLoss, outputs: Outputs, heads: Sequence[Head], labels_M: torch.Tensor
) -> SoftCrossEntropy:
    """Return the sums of one direction; the student's head comes first."""
    student, *teachers = heads
    fused = outputs.kernels.soft_cross_entropy
    if len(teachers) == 1 and fused is not soft_cross_entropy:
        return fused(student, teachers[0], labels_M, **loss.options())

    def compute(student: Head, chunk: slice) -> SoftCrossEntropy:
        parts = [teacher._replace(hidden_MD=teacher.hidden_MD[chunk]) for teacher in teachers]
        if len(parts) == 1:
            return soft_cross_entropy(student, parts[0], labels_M[chunk], **loss.options())
        return _ensemble_sums(loss, student, parts, labels_M[chunk])

    return SoftCrossEntropy(*sums_over_chunks(compute, student))


def _ensemble_sums(
    loss: SoftLoss, student: Head, teachers: Sequence[Head], labels_M: torch.Tensor
) -> SoftCrossEntropy:
    """Return the sums against the mean of the teachers' probabilities; there is no fused kernel."""
    logits_MV = logits_of(student)
    with torch.no_grad():
        teacher_MV = mean_logits(logits_of(teacher) / loss.temperature for teacher in teachers)
    divergence_M = divergences(logits_MV / loss.temperature, teacher_MV, loss.divergence)
    soft = loss.temperature**2 * divergence_M.where(labels_M != IGNORE_INDEX, 0.0).sum()
    hard, correct = cross_entropy(logits_MV, labels_M)
    total = loss.weight * soft + (loss.hard_weight or 0.0) * hard
    return SoftCrossEntropy(total, soft.detach(), hard.detach(), correct)


def _attach_gradient(total: torch.Tensor, terms: list[Term]) -> list[Term]:
    """Attach the gradient of a weighted total to one of the terms that it is the sum of.

    Values are unchanged. The term that carries the gradient is the first with a weight, if any.
    """
    index = next((n for n, term in enumerate(terms) if term.weight), 0)
    term = terms[index]
    with_gradient = term.total + (total - total.detach()) / (term.weight or 1.0)
    return [*terms[:index], term._replace(total=with_gradient), *terms[index + 1 :]]
