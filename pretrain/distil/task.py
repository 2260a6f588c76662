"""The task of a student: terms of its stage's objectives, with a teacher forward pass if needed.

Shapes: N positions, M masked tokens, D width.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from pretrain.data.batch import Batch
from pretrain.distil.layer_losses import layer_loss_sum
from pretrain.distil.logit_losses import (
    SoftLoss,
    cached_soft_terms,
    soft_terms,
    soft_terms_of_all_tokens,
)
from pretrain.distil.loss_config import HardMlm, LayerObjective, NextSentence, SoftTargets
from pretrain.distil.memory_estimate import loss_parts
from pretrain.distil.stage_plan import StagePlan, stage_at
from pretrain.distil.teacher import Teacher
from pretrain.distil.teacher_cache.targets import Kind
from pretrain.distil.trained_parameters import trained_parameters
from pretrain.losses.mlm_nsp import mlm_losses, mlm_terms, nsp_terms
from pretrain.losses.term import Term
from pretrain.model import Bert, Outputs
from pretrain.model.captured_states import States, no_states
from pretrain.monitoring.activation_memory import Activations
from pretrain.monitoring.flops import TeacherPass
from pretrain.monitoring.memory_estimate import Part
from pretrain.train.task import StepSpec


class TeacherOutputs(NamedTuple):
    """What the objectives of a micro-batch read of the teachers."""

    states: States
    outputs: tuple[Outputs, ...]  # of each teacher, in stages that need logits


class DistillationTask:
    """Objectives by stage, weighted by step.

    A stage whose objectives do not read the teacher has no teacher forward pass.

    Args:
        teachers: one, or several whose predictions are averaged.
        plans: of the stages, in order.
        cache_kind: kind of the cached soft targets that batches carry; None computes logits.
        has_mlm_head: whether the student's MLM head is trained, or its teacher's: whether a
            validation has an MLM loss.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        plans: Sequence[StagePlan],
        cache_kind: Kind | None = None,
        *,
        has_mlm_head: bool = True,
    ) -> None:
        self._teachers = teachers
        self._plans = plans
        self._cache_kind = cache_kind
        self._has_mlm_head = has_mlm_head
        self._heads = teachers[0].shape.heads

    def at(self, step: int) -> StepSpec:
        """Return the step spec of a step."""
        stage = stage_at([plan.stage for plan in self._plans], step)
        number = next(n for n, plan in enumerate(self._plans) if plan.stage is stage)
        plan = self._plans[number]
        return StepSpec(
            terms=partial(self._terms, plan, step),
            capture=plan.student_capture,
            teacher_passes=self._teacher_passes(plan),
            logits_at_all_tokens=any(
                isinstance(o, SoftTargets) and o.at == "all" for o in stage.objectives
            ),
            stage=number,
        )

    def validation(self, steps_done: int) -> StepSpec:
        """Return the spec of a validation: BERT's objectives, and the layer losses of the stage.

        The stage is that of the last step, so that a stage's last validation shows its own losses.
        """
        stage = stage_at([plan.stage for plan in self._plans], max(0, steps_done - 1))
        plan = next(plan for plan in self._plans if plan.stage is stage)
        return StepSpec(terms=partial(self._held_out_terms, plan), capture=plan.student_capture)

    def first_steps(self) -> Sequence[int]:
        """Return the first step of each stage."""
        return [plan.stage.first_step for plan in self._plans]

    def trained(self, model: Bert) -> Sequence[frozenset[str]]:
        """Return the names of the parameters that each stage trains."""
        return [trained_parameters(plan, model) for plan in self._plans]

    def memory_parts(self, act: Activations) -> list[Part]:
        """Return the memory estimate of the losses, the largest of all stages."""
        return loss_parts([self.at(step) for step in self.first_steps()], act)

    def teacher_ms(self) -> float:
        """Return the device milliseconds of the teacher forward passes since the last call."""
        return sum(teacher.timer.read_ms() for teacher in self._teachers)

    def _teacher_passes(self, plan: StagePlan) -> tuple[TeacherPass, ...]:
        if not plan.needs_teacher:
            return ()
        last = plan.teacher_capture.last
        return tuple(
            TeacherPass(teacher.cost_shape, has_mlm_head=True)
            if plan.needs_logits
            else TeacherPass(
                dataclasses.replace(teacher.cost_shape, layers=last), has_mlm_head=False
            )
            for teacher in self._teachers
        )

    def _teacher_outputs(self, plan: StagePlan, batch: Batch) -> TeacherOutputs:
        """Run the teacher forward passes of a micro-batch."""
        if plan.needs_logits:
            outputs = tuple(teacher(batch, plan.teacher_capture) for teacher in self._teachers)
            return TeacherOutputs(outputs[0].states, outputs)
        if plan.needs_teacher:
            return TeacherOutputs(self._teachers[0].states(batch, plan.teacher_capture), ())
        return TeacherOutputs(no_states(), ())

    def _terms(self, plan: StagePlan, step: int, outputs: Outputs, batch: Batch) -> list[Term]:
        weights = plan.stage.weights(step)
        teacher = self._teacher_outputs(plan, batch)
        terms = self._logit_terms(plan, weights, step, teacher, outputs, batch)
        for objective, weight in zip(plan.stage.objectives, weights, strict=True):
            if isinstance(objective, NextSentence):
                assert outputs.nsp_logits_S2 is not None  # the student was made with that head
                terms += nsp_terms(outputs.nsp_logits_S2, batch, weight)
        terms += self._layer_terms(plan, weights, teacher.states, outputs, batch)
        return _with_zero_gradients(_with_unique_tags(terms), outputs)

    def _held_out_terms(self, plan: StagePlan, outputs: Outputs, batch: Batch) -> list[Term]:
        """Return the terms of a validation; the teacher runs only where layers are compared."""
        terms = mlm_terms(mlm_losses(outputs, batch), weight=1.0) if self._has_mlm_head else []
        if outputs.nsp_logits_S2 is not None:
            terms += nsp_terms(outputs.nsp_logits_S2, batch, weight=1.0)
        if not any(plan.layer_pairs):
            return terms
        states = self._teachers[0].states(batch, plan.teacher_capture, timed=False)
        weights = [0.0] * len(plan.stage.objectives)
        return _with_unique_tags(terms + self._layer_terms(plan, weights, states, outputs, batch))

    def _layer_terms(
        self,
        plan: StagePlan,
        weights: Sequence[float],
        teacher_states: States,
        outputs: Outputs,
        batch: Batch,
    ) -> list[Term]:
        """Return a term for each objective of a stage that compares layers."""
        return [
            Term(
                f"loss/{objective.kind}",
                layer_loss_sum(objective, pairs, outputs, teacher_states, batch, self._heads),
                "tokens",
                weight,
            )
            for objective, pairs, weight in zip(
                plan.stage.objectives, plan.layer_pairs, weights, strict=True
            )
            if isinstance(objective, LayerObjective)
        ]

    def _logit_terms(
        self,
        plan: StagePlan,
        weights: Sequence[float],
        step: int,
        teacher: TeacherOutputs,
        outputs: Outputs,
        batch: Batch,
    ) -> list[Term]:
        """Return the MLM and soft-target terms, fused in one pass where a stage has both."""
        weighted = list(zip(plan.stage.objectives, weights, strict=True))
        # All hard_mlm objectives have the same labels, so together they are one loss.
        hard = [weight for objective, weight in weighted if isinstance(objective, HardMlm)]
        hard_weight = sum(hard) if hard else None
        terms: list[Term] = []
        for objective, weight in weighted:
            if not isinstance(objective, SoftTargets):
                continue
            temperature = plan.stage.temperature(objective, step)
            loss = SoftLoss(temperature, objective.divergence, weight)
            if self._cache_kind is not None:
                terms += cached_soft_terms(loss, outputs, batch, self._cache_kind)
            elif objective.at == "all":
                terms += soft_terms_of_all_tokens(loss, outputs, teacher.outputs, batch)
            else:
                loss = loss._replace(hard_weight=hard_weight)
                terms += soft_terms(loss, outputs, teacher.outputs, batch)
                hard_weight = None  # fused with the first soft-target loss
        if hard_weight is not None:
            terms = mlm_terms(mlm_losses(outputs, batch), hard_weight) + terms
        return terms


def _with_unique_tags(terms: Sequence[Term]) -> list[Term]:
    """Return terms with a number appended to every tag that occurred before."""
    seen: dict[str, int] = {}
    unique = []
    for term in terms:
        count = seen[term.tag] = seen.get(term.tag, 0) + 1
        unique.append(term._replace(tag=f"{term.tag}_{count}") if count > 1 else term)
    return unique


def _with_zero_gradients(terms: list[Term], outputs: Outputs) -> list[Term]:
    """Give parameters that the stage does not train a gradient of zero, through the first term.

    ZeRO-3 would use the gradient of an earlier stage for a parameter without one. The optimizer
    does not update these parameters, see `Engine.step`.
    """
    unused = [
        outputs.masked_MD[:1].sum(),
        outputs.decoder_bias_V[:1].sum(),
        *(project(outputs.hidden_ND[:1]).sum() for project in outputs.projections.values()),
    ]
    if outputs.nsp_logits_S2 is not None:
        unused.append(outputs.nsp_logits_S2[:1].sum())
    zero = sum(0.0 * value.float() for value in unused)
    return [terms[0]._replace(total=terms[0].total + zero), *terms[1:]]
