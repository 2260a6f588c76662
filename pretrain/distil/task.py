"""The task of a student: terms of its stage's objectives, some of which a teacher is asked for.

Shapes: N places, M masked tokens, D width.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from pretrain.data.batch import Batch
from pretrain.distil.layer_losses import layer_sum
from pretrain.distil.logit_losses import SoftLoss, cached_soft_terms, soft_terms, soft_terms_of_all
from pretrain.distil.loss_config import HardMlm, LayerObjective, NextSentence, SoftTargets
from pretrain.distil.memory import compared_parts
from pretrain.distil.reach import trained_parameters
from pretrain.distil.stage_plan import StagePlan
from pretrain.distil.stages import stage_at
from pretrain.distil.teacher import Teacher
from pretrain.distil.teacher_cache.targets import Kind
from pretrain.losses.mlm_nsp import (
    mlm_losses,
    mlm_terms,
    nsp_terms,
)
from pretrain.losses.term import Term
from pretrain.model import Bert, Outputs
from pretrain.model.captured_states import States
from pretrain.monitoring.flops import TeacherPass
from pretrain.monitoring.memory_estimate import Activations, Part
from pretrain.train.task import StepSpec


class TeacherOutputs(NamedTuple):
    """What the teachers said of a micro-batch."""

    states: States
    outputs: tuple[Outputs, ...]  # of each teacher, where words are asked for


class DistillationTask:
    """Objectives by stage, weighted by step.

    A teacher is not asked in a stage none of whose objectives needs it, so a run can end without.

    Args:
        teachers: one, or several whose predictions are averaged.
        plans: of the stages, in order.
        stored: the kind of the soft targets that batches bring, where they are not asked for.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        plans: Sequence[StagePlan],
        stored: Kind | None = None,
    ) -> None:
        self._stored = stored
        self._teachers = teachers
        self._plans = plans
        self._heads = teachers[0].shape.heads

    def at(self, step: int) -> StepSpec:
        """Return the lesson of a step."""
        stage = stage_at([plan.stage for plan in self._plans], step)
        number = next(n for n, plan in enumerate(self._plans) if plan.stage is stage)
        plan = self._plans[number]
        return StepSpec(
            terms=partial(self._terms, plan, step),
            capture=plan.student,
            teacher_passes=self._asked(plan),
            logits_at_all_tokens=any(
                isinstance(o, SoftTargets) and o.at == "all" for o in stage.objectives
            ),
            stage=number,
        )

    def first_steps(self) -> Sequence[int]:
        """Return the first step of each stage."""
        return [plan.stage.first_step for plan in self._plans]

    def trained(self, model: Bert) -> Sequence[frozenset[str]]:
        """Return the names of the parameters that each stage trains."""
        return [trained_parameters(plan, model) for plan in self._plans]

    def memory_parts(self, act: Activations) -> list[Part]:
        """Return the line of the comparison that keeps most, over all stages."""
        return compared_parts([self.at(step) for step in self.first_steps()], act)

    def teacher_ms(self) -> float:
        """Return the device's milliseconds with the teachers since the last call."""
        return sum(teacher.stopwatch.read_ms() for teacher in self._teachers)

    def _asked(self, plan: StagePlan) -> tuple[TeacherPass, ...]:
        if not plan.asks_teacher:
            return ()
        last = plan.teacher.last
        return tuple(
            TeacherPass(teacher.shape, has_mlm_head=True)
            if plan.words
            else TeacherPass(dataclasses.replace(teacher.shape, layers=last), has_mlm_head=False)
            for teacher in self._teachers
        )

    def _ask(self, plan: StagePlan, batch: Batch) -> TeacherOutputs:
        if plan.words:
            outputs = tuple(teacher(batch, plan.teacher) for teacher in self._teachers)
            return TeacherOutputs(outputs[0].states, outputs)
        if plan.asks_teacher:
            return TeacherOutputs(self._teachers[0].states(batch, plan.teacher), ())
        return TeacherOutputs(States({}, {}), ())

    def _terms(self, plan: StagePlan, step: int, outputs: Outputs, batch: Batch) -> list[Term]:
        weights = plan.stage.weights(step)
        taught = self._ask(plan, batch)
        terms = self._word_terms(plan, weights, step, taught, outputs, batch)
        for objective, pairs, weight in zip(
            plan.stage.objectives, plan.pairs, weights, strict=True
        ):
            if isinstance(objective, NextSentence):
                assert outputs.nsp_logits_S2 is not None  # the student was made with that head
                terms += nsp_terms(outputs.nsp_logits_S2, batch, weight)
            elif isinstance(objective, LayerObjective):
                total = layer_sum(objective, pairs, outputs, taught.states, batch, self._heads)
                terms.append(Term(f"loss/{objective.kind}", total, "tokens", weight))
        return _with_gradient_of_all(_numbered(terms), outputs)

    def _word_terms(
        self,
        plan: StagePlan,
        weights: Sequence[float],
        step: int,
        taught: TeacherOutputs,
        outputs: Outputs,
        batch: Batch,
    ) -> list[Term]:
        """Return the terms of masked words and soft targets, both in one where both are asked."""
        listed = list(zip(plan.stage.objectives, weights, strict=True))
        # As there is one label for a word, all of them together are one loss.
        hard = [weight for objective, weight in listed if isinstance(objective, HardMlm)]
        hard_weight = sum(hard) if hard else None
        terms: list[Term] = []
        for objective, weight in listed:
            if not isinstance(objective, SoftTargets):
                continue
            temperature = plan.stage.temperature(objective, step)
            loss = SoftLoss(temperature, objective.divergence, weight)
            if self._stored is not None:
                terms += cached_soft_terms(loss, outputs, batch, self._stored)
            elif objective.at == "all":
                terms += soft_terms_of_all(loss, outputs, taught.outputs, batch)
            else:
                loss = loss._replace(hard_weight=hard_weight)
                terms += soft_terms(loss, outputs, taught.outputs, batch)
                hard_weight = None  # the first one has it
        if hard_weight is not None:
            terms = mlm_terms(mlm_losses(outputs, batch), hard_weight) + terms
        return terms


def _numbered(terms: Sequence[Term]) -> list[Term]:
    """Return terms with a number after a tag that came before."""
    seen: dict[str, int] = {}
    numbered = []
    for term in terms:
        seen[term.tag] = seen.get(term.tag, 0) + 1
        count = seen[term.tag]
        numbered.append(term._replace(tag=f"{term.tag}_{count}") if count > 1 else term)
    return numbered


def _with_gradient_of_all(terms: list[Term], outputs: Outputs) -> list[Term]:
    """Give what this stage leaves alone a gradient of zero, by adding nothing to the first term.

    ZeRO-3 would take the gradient of an earlier stage for that of a parameter without one. The
    optimizer leaves these parameters where they are, see `Engine.step`.
    """
    unused = [
        outputs.masked_MD[:1].sum(),
        outputs.decoder_bias_V[:1].sum(),
        *(project(outputs.hidden_ND[:1]).sum() for project in outputs.projections.values()),
    ]
    if outputs.nsp_logits_S2 is not None:
        unused.append(outputs.nsp_logits_S2[:1].sum())
    nothing = sum(0.0 * value.float() for value in unused)
    return [terms[0]._replace(total=terms[0].total + nothing), *terms[1:]]
