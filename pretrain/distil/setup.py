"""Set-up of a distillation run: student and teachers, made from the recipe and checked."""

from dataclasses import replace

from data_prep.samples.pair_format import check_pair_format
from pretrain.config.phases import phases_of
from pretrain.data.dummy_batch import dummy_batch
from pretrain.data.setup import Inputs
from pretrain.data.trained_positions import TrainedPositions
from pretrain.distil.config import StudentRecipe
from pretrain.distil.loss_config import HardMlm, NextSentence, SoftTargets
from pretrain.distil.stage_plan import Stage, StagePlan, find_projections, plan_stages, stages_of
from pretrain.distil.student import (
    check_positions,
    check_student_positions,
    check_vocabulary,
    choose_layers,
    make_student,
    student_shape,
)
from pretrain.distil.task import DistillationTask
from pretrain.distil.teacher import Teacher, locate_teachers
from pretrain.distil.teacher_cache.run import open_teacher_caches
from pretrain.distil.teacher_cache.targets import Kind
from pretrain.distributed import Cluster
from pretrain.model import Bert
from pretrain.model.backend import choose_backend
from pretrain.model.foreign.hf_encoder import HfEncoder
from pretrain.model.loading import LocatedModel, load_encoder
from pretrain.model.names import known_hub_name, model_name
from pretrain.run_facts import TeacherFacts
from pretrain.train.task import Prepared

_CHECKED_MASKED_TOKENS = 256  # logits at all tokens might not fit into the remaining memory


def set_up_distillation(recipe: StudentRecipe, inputs: Inputs, cluster: Cluster) -> Prepared:
    """Return the student, its task, and the teacher facts for the manifest (all ranks).

    Raises:
        UserError: when recipe, student and teachers do not match.
    """
    located_models = _locate(recipe, inputs, cluster)
    stages = stages_of(recipe.all_stages)
    teacher = located_models[0].shape
    shape = student_shape(recipe.student, teacher, _trains_next_sentence(stages))
    check_student_positions(shape, recipe.train.longest_row)
    layers = choose_layers(recipe.student, teacher, located_models[0].foreign)
    teachers_have_head = all(located.has_mlm_head for located in located_models)
    plans = plan_stages(stages, shape, teacher, teachers_have_head, located_models[0].foreign)
    has_mlm_head = _trains_mlm_head(stages) or bool(layers and located_models[0].has_mlm_head)
    cache_kind = None
    if recipe.teacher.cache is not None:
        cache_kind = _attach_teacher_cache(recipe, inputs, located_models[0].sha256, cluster)
        plans = [replace(plan, needs_logits=False) for plan in plans]
    models = cluster.on_all(lambda: [load_encoder(located) for located in located_models])
    projections = find_projections(plans, shape, teacher)
    copied = models[0] if isinstance(models[0], Bert) else None
    student = make_student(copied, shape, layers, recipe.train.seed, projections)
    # Counted before the layers that no loss reads are removed.
    parameters = sum(model.count_parameters() for model in models)
    teachers = [
        _open_teacher(recipe, cluster, located, model, plans)
        for located, model in zip(located_models, models, strict=True)
    ]
    return Prepared(
        model=student,
        task=DistillationTask(teachers, plans, cache_kind, has_mlm_head=has_mlm_head),
        teacher_facts=TeacherFacts(
            weights="+".join(located.sha256 for located in located_models),
            names=[model_name(located.folder) for located in located_models],
            hub_names=[known_hub_name(located.folder) for located in located_models],
            layers=layers,
            parameters=parameters,
            parameters_kept=sum(teacher.peak_parameters for teacher in teachers),
            validation=_validation_of(located_models),
        ),
        inherited_positions=(
            min(located_models[0].trained_positions, shape.positions) if layers else 0
        ),
        has_mlm_head=has_mlm_head,
    )


def _locate(recipe: StudentRecipe, inputs: Inputs, cluster: Cluster) -> list[LocatedModel]:
    """Locate the teachers and check their positions and vocabulary (all ranks)."""
    paths, tokenizer = recipe.teacher.all_paths, inputs.tokenizer
    if recipe.samples.pairs != "none":
        check_pair_format(tokenizer, "set samples.pairs=none")
    located_models = cluster.on_main(lambda: locate_teachers(paths, tokenizer))
    phases = phases_of(recipe.train)
    needed = TrainedPositions.of(phases, inputs.sources).at_end
    for located in located_models:
        check_positions(located, recipe.train.longest_row, needed)
        check_vocabulary(located.shape, tokenizer)
    return located_models


def _attach_teacher_cache(
    recipe: StudentRecipe, inputs: Inputs, teacher_sha256: str, cluster: Cluster
) -> Kind:
    """Add the cached soft targets to the loader's batches, and return their kind (all ranks)."""
    readers = open_teacher_caches(recipe, inputs, teacher_sha256, cluster)
    inputs.loader.set_transforms({length: r.add_targets for length, r in readers.items()})
    return next(iter(readers.values())).options.kind


def _open_teacher(
    recipe: StudentRecipe,
    cluster: Cluster,
    located: LocatedModel,
    model: Bert | HfEncoder,
    plans: list[StagePlan],
) -> Teacher:
    """Make a teacher without the layers that no stage needs, and check its outputs."""
    needs_logits = any(plan.needs_logits for plan in plans)
    backend = choose_backend(recipe.kernels, recipe.train, model.shape, cluster.device)
    teacher = Teacher(
        model,
        cluster.device,
        recipe.train.precision,
        backend,
        layers=None if needs_logits else max(plan.teacher_capture.last for plan in plans),
        has_mlm_head=located.has_mlm_head,
        name=f"The teacher {located.folder}",
        sharded=recipe.teacher.sharded and cluster.world_size > 1,
    )
    if located.unread and cluster.is_main:
        print(f"{teacher.name}: {', '.join(located.unread)} are not used.")
    if teacher.sharded and cluster.is_main:
        print(f"{teacher.name}: its layers are sharded over {cluster.world_size} ranks.")
    _check_outputs(teacher, recipe, cluster, plans)
    return teacher


def _check_outputs(
    teacher: Teacher, recipe: StudentRecipe, cluster: Cluster, plans: list[StagePlan]
) -> None:
    """Check a teacher's outputs on a dummy batch (all ranks).

    The batch has the shape of the first phase, so that no extra shape is compiled.
    """
    phase = phases_of(recipe.train)[0]
    rows = phase.micro_rows * (2 if recipe.mask.bidirectional else 1)
    batch = dummy_batch(
        teacher.shape.vocab_size, rows, phase.row_tokens, masked_tokens=_CHECKED_MASKED_TOKENS
    ).to(cluster.device)
    for plan in plans:
        if plan.needs_teacher:
            teacher.check(batch, plan.teacher_capture, plan.needs_logits)


def _trains_next_sentence(stages: list[Stage]) -> bool:
    return any(isinstance(o, NextSentence) for stage in stages for o in stage.objectives)


def _trains_mlm_head(stages: list[Stage]) -> bool:
    return any(isinstance(o, SoftTargets | HardMlm) for stage in stages for o in stage.objectives)


def _validation_of(teachers: list[LocatedModel]) -> dict[str, float]:
    """Return the validation metrics of a single teacher, where they are known."""
    facts = teachers[0].facts
    return facts.validation if facts and len(teachers) == 1 else {}
