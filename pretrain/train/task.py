"""Tasks: what a run learns. The loop is the same for teacher and student; the task differs.

A task turns the outputs of one micro-batch into terms (see `objectives/term.py`). It does so inside
the model's forward pass, see `Bert.forward`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pretrain.data.batch import Batch
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import Objective, Term
from pretrain.model import Bert, Outputs
from pretrain.model.captured_states import NO_CAPTURE, Capture
from pretrain.monitoring.flops import TeacherPass
from pretrain.monitoring.memory_estimate import Activations, Part


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """What is learned in one step: the same for all its micro-batches and ranks."""

    terms: Objective  # always the same tags in the same order
    capture: Capture = NO_CAPTURE  # states that the terms read, of the model that learns
    teacher_passes: tuple[TeacherPass, ...] = ()  # models that are asked beside it
    logits_at_all_tokens: bool = False  # whether words are compared at all tokens
    stage: int = 0  # of the task's stages, see `Task.trained`


class Task(Protocol):
    """Lessons, by step."""

    def at(self, step: int) -> StepSpec:
        """Return the lesson of a step, counted from 0: a pure function of it."""
        ...

    def first_steps(self) -> Sequence[int]:
        """Return the first step of each stage."""
        ...

    def trained(self, model: Bert) -> Sequence[frozenset[str]]:
        """Return the names of the parameters that each stage trains; empty where all train all."""
        ...

    def memory_parts(self, act: Activations) -> list[Part]:
        """Return what the losses keep until the backward pass, beyond what the layers do."""
        ...

    def teacher_ms(self) -> float:
        """Return the device's milliseconds with other models since the last call."""
        ...


class PretrainingTask:
    """BERT's own objectives: masked words and next sentences."""

    def at(self, step: int) -> StepSpec:
        """Return the same lesson for every step."""
        return StepSpec(terms=self.terms)

    def terms(self, outputs: Outputs, batch: Batch) -> list[Term]:
        """Return the masked-word and next-sentence terms."""
        return pretraining_terms(outputs, batch)

    def first_steps(self) -> Sequence[int]:
        """Return the first step: there is one stage."""
        return (0,)

    def trained(self, model: Bert) -> Sequence[frozenset[str]]:
        """Return nothing: every step trains all parameters."""
        return ()

    def memory_parts(self, act: Activations) -> list[Part]:
        """Return nothing: the losses on logits keep no layers."""
        return []

    def teacher_ms(self) -> float:
        """Return 0: nobody is asked."""
        return 0.0
