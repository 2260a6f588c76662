"""Students and their tasks without a run, from objectives of a recipe and teachers in memory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from pretrain.data.batch import Batch
from pretrain.distil.config import StudentOptions
from pretrain.distil.loss_config import StageOptions
from pretrain.distil.stage_plan import find_projections, plan_stages, stages_of
from pretrain.distil.student import choose_layers, make_student, student_shape
from pretrain.distil.task import DistillationTask
from pretrain.distil.teacher import Teacher
from pretrain.losses.term import Term
from pretrain.model import Bert, BertShape

Objectives = Sequence[dict[str, Any]]
CPU = torch.device("cpu")
DISTILBERT: Objectives = [
    {"kind": "soft_targets", "weight": 5.0, "temperature": 2.0},
    {"kind": "hard_mlm", "weight": 2.0},
    {"kind": "hidden_cosine"},
]


def stage(objectives: Objectives, steps: int = 10) -> StageOptions:
    """Return the options of a stage, as in a recipe."""
    return StageOptions.model_validate({"steps": steps, "objectives": list(objectives)})


def make_distillation(
    teachers: Bert | Sequence[Bert],
    *stages: StageOptions,
    precision: str = "fp32",
    **student: Any,
) -> tuple[Bert, DistillationTask]:
    """Return a student of the given options and its task."""
    models = [teachers] if isinstance(teachers, Bert) else list(teachers)
    options = StudentOptions.model_validate(student)
    teacher_shape = models[0].shape
    next_sentence = any(o.kind == "next_sentence" for s in stages for o in s.objectives)
    shape = student_shape(options, teacher_shape, next_sentence)
    plans = plan_stages(stages_of(stages), shape, teacher_shape, has_mlm_head=True)
    projections = find_projections(plans, shape, teacher_shape)
    model = make_student(models[0], shape, choose_layers(options, teacher_shape), 0, projections)
    model.detach_unused_pooler()  # as a run does
    return model, DistillationTask([Teacher(m, CPU, precision) for m in models], plans)


def terms_of(student: Bert, task: DistillationTask, batch: Batch, step: int = 0) -> list[Term]:
    """Return the terms of a micro-batch, computed in the forward pass as in the loop."""
    spec = task.at(step)
    terms: list[Term] = student(batch, spec.terms, capture=spec.capture)
    return terms


def narrower(shape: BertShape) -> dict[str, int]:
    """Return student options of half a shape's width with as many heads."""
    return {"width": shape.width // 2, "feed_forward": shape.feed_forward // 2}


def deeper(shape: BertShape, layers: int) -> BertShape:
    """Return a shape with another number of layers."""
    return replace(shape, layers=layers)
