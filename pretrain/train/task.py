"""Tasks: what a run optimises. The loop is the same for teacher and student; the task differs.

A task turns the outputs of one micro-batch into loss terms (see `losses/term.py`), inside the
forward pass of the model (see `Bert.forward`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pretrain.data.batch import Batch
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import Objective, Term
from pretrain.model import Bert, Outputs
from pretrain.model.captured_states import NO_CAPTURE, Capture
from pretrain.monitoring.activation_memory import Activations
from pretrain.monitoring.flops import TeacherPass
from pretrain.monitoring.memory_estimate import Part
from pretrain.run_facts import StartFacts, TeacherFacts


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """What one optimizer step computes: the same for all its micro-batches and ranks."""

    terms: Objective  # always the same tags in the same order
    capture: Capture = NO_CAPTURE  # states of the trained model that the terms read
    teacher_passes: tuple[TeacherPass, ...] = ()  # forward passes of teachers
    logits_at_all_tokens: bool = False  # whether a term compares logits at all tokens
    stage: int = 0  # index into `Task.trained`


# Of a model without a teacher.
PRETRAINING_VALIDATION = StepSpec(terms=pretraining_terms)


class Task(Protocol):
    """The step spec of every step, and what follows from it for the run."""

    def at(self, step: int) -> StepSpec:
        """Return the spec of a step, counted from 0: a pure function of it."""
        ...

    def validation(self, steps_done: int) -> StepSpec:
        """Return the spec of the forward passes of a validation after some steps."""
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
        """Return the milliseconds of device time of teachers since the last call."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model in its initial state and its task, made once the inputs of a run are verified."""

    model: Bert
    task: Task
    teacher_facts: TeacherFacts | None = None  # of a student
    start_facts: StartFacts | None = None  # where pretraining is continued
    inherited_positions: int = 0  # trained before, where position embeddings were copied
    has_mlm_head: bool = True  # whether its MLM head is trained, or copied from one that was


class PretrainingTask:
    """BERT's own objectives: MLM, and NSP where samples are pairs."""

    def at(self, step: int) -> StepSpec:
        """Return the same spec for every step."""
        return StepSpec(terms=self.terms)

    def terms(self, outputs: Outputs, batch: Batch) -> list[Term]:
        """Return the MLM and NSP terms."""
        return pretraining_terms(outputs, batch)

    def validation(self, steps_done: int) -> StepSpec:
        """Return the spec of a validation, which has the objectives of the training."""
        return PRETRAINING_VALIDATION

    def first_steps(self) -> Sequence[int]:
        """Return the first step: there is one stage."""
        return (0,)

    def trained(self, model: Bert) -> Sequence[frozenset[str]]:
        """Return an empty list: every step trains all parameters."""
        return ()

    def memory_parts(self, act: Activations) -> list[Part]:
        """Return an empty list: losses on logits keep no states of layers."""
        return []

    def teacher_ms(self) -> float:
        """Return 0: there is no teacher."""
        return 0.0
