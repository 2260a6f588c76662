"""Student and teachers of a run, made from its recipe and checked against each other."""

from dataclasses import replace

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
from pretrain.run_facts import TeacherFacts
from pretrain.train.task import Prepared

_PROBED_WORDS = 256  # vocabularies of all tokens would not fit beside all that is to come


def set_up_distillation(recipe: StudentRecipe, inputs: Inputs, cluster: Cluster) -> Prepared:
    """Return the student, its task, and what the manifest states of its teachers (all ranks).

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
    # Counted before layers that no loss reads are cut off.
    parameters = sum(one.model.count_parameters() for one in trained)
    teachers = [
        _open_teacher(recipe, cluster, located, model.model, plans)
        for located, model in zip(found, trained, strict=True)
    ]
    return Prepared(
        model=student,
        task=DistillationTask(teachers, plans, kind),
        teacher_facts=TeacherFacts(
            weights="+".join(located.sha256 for located in found),
            layers=layers,
            parameters=parameters,
            parameters_kept=sum(teacher.parameters for teacher in teachers),
            validation=_validation_of(trained),
        ),
    )


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


def _validation_of(trained: list[TrainedModel]) -> dict[str, float]:
    """Return the scores of the only teacher, where they are known."""
    facts = trained[0].facts
    return facts.validation if facts and len(trained) == 1 else {}
