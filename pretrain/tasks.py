"""Tasks: what a run learns. The loop is the same for teacher and student; the task differs.

A task turns the outputs of one micro-batch into terms (see `objectives/term.py`). It does so inside
the model's forward pass, see `Bert.forward`.
"""

from typing import Protocol

from pretrain.batch import Batch
from pretrain.config import LossOptions
from pretrain.kernels.linear_cross_entropy import IGNORED
from pretrain.model import BertShape, Outputs
from pretrain.objectives.hidden_states import cosine_sum
from pretrain.objectives.mlm_nsp import (
    masked_word_terms,
    pretraining_terms,
    word_losses,
    word_losses_of,
)
from pretrain.objectives.soft_targets import soft_target_sum
from pretrain.objectives.term import Term
from pretrain.teacher import Teacher


class Task(Protocol):
    """Terms of a micro-batch, always the same tags in the same order."""

    def terms(self, outputs: Outputs, batch: Batch) -> list[Term]:
        """Return the terms of one micro-batch."""
        ...

    @property
    def teacher_shape(self) -> BertShape | None:
        """The shape of the model that is asked beside the one that learns, if there is one."""
        ...


class PretrainingTask:
    """BERT's own objectives: masked words and next sentences."""

    teacher_shape = None

    def terms(self, outputs: Outputs, batch: Batch) -> list[Term]:
        """Return the masked-word and next-sentence terms."""
        return pretraining_terms(outputs, batch)


class DistillationTask:
    """The DistilBERT loss: soft targets, masked words, cosine of last hidden states.

    The teacher is not asked when neither of its terms has a weight, so a student can be trained
    without it for comparison.
    """

    def __init__(self, teacher: Teacher, loss: LossOptions) -> None:
        self._teacher = teacher
        self._loss = loss

    @property
    def teacher_shape(self) -> BertShape | None:
        """The teacher's shape, where one of its terms has a weight."""
        return self._teacher.shape if self._loss.soft + self._loss.cosine else None

    def terms(self, outputs: Outputs, batch: Batch) -> list[Term]:
        """Return the terms with a weight, and the masked-word accuracy."""
        loss = self._loss
        # The soft targets need the logits in memory: then the hard ones take them as well.
        words = (
            word_losses_of(outputs.mlm_logits_MV, batch)
            if loss.soft
            else word_losses(outputs, batch)
        )
        terms = masked_word_terms(words, loss.hard)
        if not loss.soft + loss.cosine:
            return terms
        taught = self._teacher(batch)
        if loss.soft:
            logits = (outputs.mlm_logits_MV, taught.mlm_logits_MV)
            soft = soft_target_sum(*logits, loss.temperature, batch.mlm_labels != IGNORED)
            terms.append(Term("loss/soft", soft, "masked", loss.soft))
        if loss.cosine:
            distance = cosine_sum(outputs.hidden_ND, taught.hidden_ND, batch.sample_ids > 0)
            terms.append(Term("loss/cosine", distance, "tokens", loss.cosine))
        return terms
