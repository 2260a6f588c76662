"""Student and teachers of a run, made from its recipe and checked against each other."""

from dataclasses import replace
from typing import Any

from pretrain.config.phases import phases_of
from pretrain.data.dummy_batch import dummy_batch
from pretrain.data.setup import Inputs
from pretrain.distil.config import StudentRecipe
from pretrain.distil.loss_config import NextSentence
from pretrain.distil.stage_plan import StagePlan, find_projections, plan_stages
from pretrain.distil.stages import Stage, stages_of
from pretrain.distil.student import (
    check_positions,
    check_vocabulary,
    choose_layers,
    make_student,
    student_shape,
)
from pretrain.distil.task import DistillationTask
from pretrain.distil.teacher import Teacher, locate_teachers
from pretrain.distil.teacher_cache.run import open_teacher_caches
from pretrain.distributed import Cluster
from pretrain.model import Bert
from pretrain.model.backend import choose_backend
from pretrain.model.loading import LocatedModel, TrainedModel, load_located
from pretrain.train.task import Task

_PROBED_WORDS = 256  # vocabularies of all tokens would not fit beside all that is to come


def set_up_distillation(
    recipe: StudentRecipe, inputs: Inputs, cluster: Cluster
) -> tuple[Bert, Task, dict[str, Any]]:
    """Return the student, its task, and facts for the manifest (all ranks).

    Raises:
        UserError: when recipe, student and teachers do not fit each other.
    """
    paths, tokenizer = recipe.teacher.all_paths, inputs.tokenizer.fingerprint
    found = cluster.on_main(lambda: locate_teachers(paths, tokenizer))
    stages = stages_of(recipe.all_stages)
    first = found[0].shape
    for located in found:
        check_positions(located.shape, recipe.train.longest_row)
        check_vocabulary(located.shape, inputs.tokenizer)
    shape = student_shape(recipe.student, first, _asks_next_sentence(stages))
    layers = choose_layers(recipe.student, first)
    plans = plan_stages(stages, shape, first, all(located.has_mlm_head for located in found))
    kind = None
    if recipe.teacher.signal is not None:
        signals = open_teacher_caches(recipe, inputs, found[0].sha256, cluster)
        inputs.loader.set_transforms({length: s.teach for length, s in signals.items()})
        kind = next(iter(signals.values())).options.kind
        plans = [replace(plan, words=False) for plan in plans]
    trained = [load_located(located) for located in found]
    student = make_student(
        trained[0].model, shape, layers, recipe.train.seed, find_projections(plans, shape, first)
    )
    facts = _facts(found, trained, layers)
    teachers = [
        _open_teacher(recipe, cluster, located, model.model, plans)
        for located, model in zip(found, trained, strict=True)
    ]
    facts["teacher_parameters_kept"] = sum(teacher.parameters for teacher in teachers)
    return student, DistillationTask(teachers, plans, kind), facts


def _open_teacher(
    recipe: StudentRecipe,
    cluster: Cluster,
    located: LocatedModel,
    model: Bert,
    plans: list[StagePlan],
) -> Teacher:
    """Make one teacher ready, cut off above what is needed, and ask it a first time."""
    words = any(plan.words for plan in plans)
    backend = choose_backend(recipe.kernels, recipe.train, model.shape, cluster.device)
    teacher = Teacher(
        model,
        cluster.device,
        recipe.train.precision,
        backend,
        layers=None if words else max(plan.teacher.last for plan in plans),
        has_mlm_head=located.has_mlm_head,
        name=f"The teacher {located.weights.parent}",
        sharded=recipe.teacher.sharded and cluster.world_size > 1,
    )
    if teacher.sharded and cluster.is_main:
        print(f"{teacher.name}: its layers are shared out among {cluster.world_size} ranks.")
    phase = phases_of(recipe.train)[0]
    rows = phase.micro_rows * (2 if recipe.mask.bidirectional else 1)
    # Of the shape that the first phase has, so that nothing is compiled for this alone.
    batch = dummy_batch(model.shape.vocab_size, rows, phase.row_tokens, masked_tokens=_PROBED_WORDS)
    batch = batch.to(cluster.device)
    for plan in plans:
        if plan.asks_teacher:
            teacher.check(batch, plan.teacher, plan.words)
    return teacher


def _asks_next_sentence(stages: list[Stage]) -> bool:
    return any(isinstance(o, NextSentence) for stage in stages for o in stage.objectives)


def _facts(
    found: list[LocatedModel], trained: list[TrainedModel], layers: list[int]
) -> dict[str, Any]:
    return {
        "kind": "student",
        "teacher_weights": "+".join(located.sha256 for located in found),
        "teacher_layers": layers,
        "teacher_parameters": sum(one.model.count_parameters() for one in trained),
        "teacher_validation": trained[0].facts.get("validation", {}) if len(found) == 1 else {},
    }
