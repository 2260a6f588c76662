"""What a stage needs of student and teacher, found out and checked before any compute is spent.

Layers are counted as their outputs are, see distil_options.py; here none is negative any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.errors import UserError
from pretrain.distil.loss_config import (
    AttentionObjective,
    LayerObjective,
    Objective,
    ProjectedObjective,
    Relations,
    SoftTargets,
)
from pretrain.distil.stages import Stage
from pretrain.model import BertShape
from pretrain.model.captured_states import Capture

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage."""

    stage: Stage
    pairs: tuple[Pairs, ...]  # of each objective: layers of student and teacher
    student: Capture
    teacher: Capture
    words: bool  # whether the teacher has_mlm_head words

    @property
    def asks_teacher(self) -> bool:
        """Whether there is anything to ask it."""
        return self.words or bool(self.teacher.hidden or self.teacher.attention)


def plan_stages(
    stages: Sequence[Stage], student: BertShape, teacher: BertShape, teacher_predicts: bool
) -> list[StagePlan]:
    """Return a plan of each stage.

    Raises:
        UserError: for layers that are not there, heads that do not agree or divide, widths that
            differ where nothing maps them, or soft targets of a teacher that has_mlm_head no words.
    """
    return [_plan(stage, student, teacher, teacher_predicts) for stage in stages]


def projection_name(student_layer: int, teacher_layer: int) -> str:
    """Return what the map from one layer's width to another's is called within a student."""
    return f"layer{student_layer}_to_{teacher_layer}"


def find_projections(
    plans: Sequence[StagePlan], student: BertShape, teacher: BertShape
) -> dict[str, int]:
    """Return the projections that a run needs and the width they lead to, by name."""
    if student.width == teacher.width:
        return {}
    return {
        projection_name(own, theirs): teacher.width
        for plan in plans
        for objective, pairs in zip(plan.stage.objectives, plan.pairs, strict=True)
        if isinstance(objective, ProjectedObjective)
        for own, theirs in pairs
    }


def _plan(stage: Stage, student: BertShape, teacher: BertShape, has_mlm_head: bool) -> StagePlan:
    pairs = tuple(_resolve(objective, student, teacher) for objective in stage.objectives)
    for objective in stage.objectives:
        _check(objective, student, teacher, has_mlm_head)
    return StagePlan(
        stage=stage,
        pairs=pairs,
        student=_capture(stage.objectives, pairs, side=0),
        teacher=_capture(stage.objectives, pairs, side=1),
        words=any(isinstance(objective, SoftTargets) for objective in stage.objectives),
    )


def _capture(objectives: Sequence[Objective], pairs: Sequence[Pairs], side: int) -> Capture:
    attention: set[int] = set()
    hidden: set[int] = set()
    for objective, layers in zip(objectives, pairs, strict=True):
        chosen = attention if isinstance(objective, AttentionObjective) else hidden
        chosen.update(pair[side] for pair in layers)
    return Capture(hidden=frozenset(hidden), attention=frozenset(attention))


def _resolve(objective: Objective, student: BertShape, teacher: BertShape) -> Pairs:
    if not isinstance(objective, LayerObjective):
        return ()
    first = 1 if isinstance(objective, AttentionObjective) else 0
    return tuple(
        (
            _layer(own, student, first, f"{objective.kind} names student_layer", "student"),
            _layer(theirs, teacher, first, f"{objective.kind} names teacher_layer", "teacher"),
        )
        for own, theirs in objective.pairs
    )


def _layer(number: int, shape: BertShape, first: int, named: str, whose: str) -> int:
    found = number if number >= 0 else shape.layers + 1 + number
    if not first <= found <= shape.layers:
        kept = "0 is its embeddings" if first == 0 else "its embeddings attend to nothing"
        raise UserError(
            f"The objective {named} {number}, but the {whose} has layers {first} to "
            f"{shape.layers} ({kept}): name one of them, or count from the end with -1."
        )
    return found


def _check(
    objective: Objective, student: BertShape, teacher: BertShape, has_mlm_head: bool
) -> None:
    if isinstance(objective, SoftTargets) and not has_mlm_head:
        raise UserError(
            "The objective soft_targets asks the teacher for words, but it has no masked-word "
            "head: choose a teacher with one, or objectives that compare layers."
        )
    if isinstance(objective, Relations):
        for whose, shape in (("student", student), ("teacher", teacher)):
            if shape.width % objective.heads:
                raise UserError(
                    f"The objective relations has {objective.heads} heads, which do not divide "
                    f"the {whose}'s width {shape.width}: choose a number that divides both widths."
                )
    elif isinstance(objective, AttentionObjective) and student.heads != teacher.heads:
        raise UserError(
            f"The objective {objective.kind} compares head by head, but the student has "
            f"{student.heads} heads and the teacher {teacher.heads}: set student.heads="
            f"{teacher.heads}, or use the objective relations."
        )
    _check_width(objective, student, teacher)


def _check_width(objective: Objective, student: BertShape, teacher: BertShape) -> None:
    if not isinstance(objective, ProjectedObjective):
        return
    if student.width != teacher.width and not objective.projection:
        raise UserError(
            f"The objective {objective.kind} compares states of width {student.width} with the "
            f"teacher's {teacher.width}: let it have its projection, or make widths equal."
        )
