"""Stages of a distillation run, and what each one needs of student and teacher.

The stage of a step, and the weights of its objectives, are functions of the step number alone, so
resuming needs no state for them. Plans are checked before any compute is spent. Layers are counted
as their outputs are, see loss_config.py; in a plan negative ones are resolved.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.errors import UserError
from pretrain.distil.loss_config import (
    AttentionDistributions,
    AttentionObjective,
    AttentionScores,
    LayerObjective,
    Objective,
    ProjectedObjective,
    Relations,
    SoftTargets,
    StageOptions,
    value_at,
    weight_at,
)
from pretrain.model import BertShape
from pretrain.model.captured_states import Capture
from pretrain.model.foreign.hf_config import ForeignAttention

LayerPairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive steps with the same list of objectives."""

    first_step: int
    steps: int
    objectives: tuple[Objective, ...]

    def weights(self, step: int) -> list[float]:
        """Return the weight of each objective in a step of this stage."""
        index = step - self.first_step
        return [weight_at(objective, index, self.steps) for objective in self.objectives]

    def temperature(self, objective: SoftTargets, step: int) -> float:
        """Return the temperature of soft targets in a step of this stage."""
        index = step - self.first_step
        schedule = objective.temperature_schedule
        return value_at(objective.temperature, schedule, index, self.steps)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """A stage, with the states and logits that its objectives read."""

    stage: Stage
    layer_pairs: tuple[LayerPairs, ...]  # of each objective: layers of student and teacher
    student_capture: Capture
    teacher_capture: Capture
    needs_logits: bool  # whether an objective reads the teacher's logits

    @property
    def needs_teacher(self) -> bool:
        """Whether the stage has a teacher forward pass."""
        capture = self.teacher_capture
        return self.needs_logits or bool(capture.hidden or capture.attention)


def stages_of(options: Sequence[StageOptions]) -> list[Stage]:
    """Return the stages of a run in order, without objectives whose weight is always 0."""
    stages: list[Stage] = []
    step = 0
    for option in options:
        active = tuple(o for o in option.objectives if o.weight or o.schedule)
        stages.append(Stage(first_step=step, steps=option.steps, objectives=active))
        step += option.steps
    return stages


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """Return the stage of a step, counted from 0."""
    return next(stage for stage in reversed(stages) if stage.first_step <= step)


def plan_stages(
    stages: Sequence[Stage],
    student: BertShape,
    teacher: BertShape,
    has_mlm_head: bool,
    foreign: ForeignAttention | None = None,
) -> list[StagePlan]:
    """Return the plan of each stage.

    Args:
        stages: of the run.
        student, teacher: their shapes.
        has_mlm_head: whether every teacher has an MLM head.
        foreign: the attention of a teacher that is no BERT.

    Raises:
        UserError: for layers that do not exist, numbers of heads that differ or do not divide a
            width, widths that differ without a projection, soft targets without an MLM head, or
            attention that the teacher does not have.
    """
    plans = [_plan(stage, student, teacher, has_mlm_head) for stage in stages]
    if foreign is not None:
        for plan in plans:
            for objective, pairs in zip(plan.stage.objectives, plan.layer_pairs, strict=True):
                _check_attention(objective, pairs, teacher, foreign)
    return plans


def projection_name(student_layer: int, teacher_layer: int) -> str:
    """Return the name, within a student, of the projection of one layer to another's width."""
    return f"layer{student_layer}_to_{teacher_layer}"


def find_projections(
    plans: Sequence[StagePlan], student: BertShape, teacher: BertShape
) -> dict[str, int]:
    """Return the output width of each projection that a run needs, by name."""
    if student.width == teacher.width:
        return {}
    return {
        projection_name(student_layer, teacher_layer): teacher.width
        for plan in plans
        for objective, pairs in zip(plan.stage.objectives, plan.layer_pairs, strict=True)
        if isinstance(objective, ProjectedObjective)
        for student_layer, teacher_layer in pairs
    }


def _plan(stage: Stage, student: BertShape, teacher: BertShape, has_mlm_head: bool) -> StagePlan:
    layer_pairs = tuple(_resolve(objective, student, teacher) for objective in stage.objectives)
    for objective in stage.objectives:
        _check_mlm_head(objective, has_mlm_head)
        _check_heads(objective, student, teacher)
        _check_width(objective, student, teacher)
    return StagePlan(
        stage=stage,
        layer_pairs=layer_pairs,
        student_capture=_capture(stage.objectives, layer_pairs, side=0),
        teacher_capture=_capture(stage.objectives, layer_pairs, side=1),
        needs_logits=any(isinstance(objective, SoftTargets) for objective in stage.objectives),
    )


def _capture(
    objectives: Sequence[Objective], layer_pairs: Sequence[LayerPairs], side: int
) -> Capture:
    """Return the states that objectives read, of the student (side 0) or the teacher (side 1)."""
    attention: set[int] = set()
    hidden: set[int] = set()
    for objective, pairs in zip(objectives, layer_pairs, strict=True):
        layers = attention if isinstance(objective, AttentionObjective) else hidden
        layers.update(pair[side] for pair in pairs)
    return Capture(hidden=frozenset(hidden), attention=frozenset(attention))


def _resolve(objective: Objective, student: BertShape, teacher: BertShape) -> LayerPairs:
    """Return the layer pairs of an objective, counted from the embeddings, 0."""
    if not isinstance(objective, LayerObjective):
        return ()
    first = 1 if isinstance(objective, AttentionObjective) else 0
    return tuple(
        (
            _layer(student_layer, student, first, objective.kind, "student"),
            _layer(teacher_layer, teacher, first, objective.kind, "teacher"),
        )
        for student_layer, teacher_layer in objective.pairs
    )


def _layer(number: int, shape: BertShape, first: int, kind: str, model: str) -> int:
    layer = number if number >= 0 else shape.layers + 1 + number
    if not first <= layer <= shape.layers:
        note = "0 is its embeddings" if first == 0 else "its embeddings have no attention"
        raise UserError(
            f"The objective {kind} names {model}_layer {number}, but the {model} has layers "
            f"{first} to {shape.layers} ({note}): name one of them, or count from the end with -1."
        )
    return layer


def _check_mlm_head(objective: Objective, has_mlm_head: bool) -> None:
    if isinstance(objective, SoftTargets) and not has_mlm_head:
        raise UserError(
            "The objective soft_targets needs the teacher's logits, but the teacher has no MLM "
            "head: choose a teacher with one, or objectives that compare layers."
        )


def _check_heads(objective: Objective, student: BertShape, teacher: BertShape) -> None:
    if isinstance(objective, Relations):
        for model, shape in (("student", student), ("teacher", teacher)):
            if shape.width % objective.heads:
                raise UserError(
                    f"The objective relations has {objective.heads} heads, which do not divide "
                    f"the {model}'s width {shape.width}: choose a number that divides both widths."
                )
    elif isinstance(objective, AttentionObjective) and student.heads != teacher.heads:
        raise UserError(
            f"The objective {objective.kind} compares head by head, but the student has "
            f"{student.heads} heads and the teacher {teacher.heads}: set student.heads="
            f"{teacher.heads}, or use the objective relations."
        )


def _check_attention(
    objective: Objective, pairs: LayerPairs, teacher: BertShape, foreign: ForeignAttention
) -> None:
    """Refuse comparisons with attention that a teacher of another family does not compute."""
    windowed = {layer for _, layer in pairs} & foreign.windowed_layers
    if isinstance(objective, AttentionScores | AttentionDistributions) and windowed:
        whole = sorted(set(range(1, teacher.layers + 1)) - foreign.windowed_layers)
        raise UserError(
            f"The objective {objective.kind} names teacher_layer {min(windowed)}, whose tokens "
            f"attend to near ones alone in a {foreign.model_type}: name one of "
            f"{', '.join(map(str, whole))}, or use relations, value_relations, hidden states or "
            "soft_targets."
        )
    if (
        foreign.is_rotary
        and isinstance(objective, Relations)
        and set(objective.relations) - {"vv"}
        # Rotation pairs dimensions of one head, which a narrower relation head would tear apart.
        and teacher.heads % objective.heads
    ):
        raise UserError(
            f"The objective relations has {objective.heads} heads, but a {foreign.model_type} "
            f"rotates the queries and keys of its {teacher.heads} heads: choose a divisor of "
            f"{teacher.heads}, or relations=[vv]."
        )


def _check_width(objective: Objective, student: BertShape, teacher: BertShape) -> None:
    if not isinstance(objective, ProjectedObjective):
        return
    if student.width != teacher.width and not objective.projection:
        raise UserError(
            f"The objective {objective.kind} compares states of width {student.width} with the "
            f"teacher's {teacher.width}: set its projection to true, or make the widths equal."
        )
