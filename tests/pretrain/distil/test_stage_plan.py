"""Stage plans: layers, captured states, projections, and mismatches that are refused."""

from dataclasses import replace
from typing import Any

import pytest

from data_prep.errors import UserError
from pretrain.distil.loss_config import SoftTargets
from pretrain.distil.stage_plan import (
    StagePlan,
    find_projections,
    plan_stages,
    stage_at,
    stages_of,
)
from pretrain.model import BertShape
from pretrain.model.captured_states import Capture
from tests.student_tasks import stage


def plan(
    objective: dict[str, Any], student: BertShape, teacher: BertShape, has_mlm_head: bool = True
) -> StagePlan:
    (found,) = plan_stages(stages_of([stage([objective])]), student, teacher, has_mlm_head)
    return found


def test_negative_layers_resolved(tiny_shape: BertShape) -> None:
    """Layers may be counted from the embeddings or from the last one."""
    student, teacher = replace(tiny_shape, layers=3), replace(tiny_shape, layers=6)
    listed = {"kind": "hidden_mse", "student_layer": [0, -1, -2], "teacher_layer": [0, 6, -3]}
    found = plan(listed, student, teacher)
    assert found.layer_pairs == (((0, 0), (3, 6), (2, 4)),)
    assert found.student_capture == Capture(hidden=frozenset({0, 2, 3}))
    assert found.teacher_capture == Capture(hidden=frozenset({0, 4, 6}))
    assert found.needs_teacher and not found.needs_logits


def test_capture_ends_at_highest_layer(tiny_shape: BertShape) -> None:
    """The highest captured layer bounds the teacher forward pass; without any there is none."""
    student, teacher = replace(tiny_shape, layers=3), replace(tiny_shape, layers=24)
    found = plan({"kind": "relations", "heads": 4, "teacher_layer": 21}, student, teacher)
    assert found.teacher_capture.last == 21
    assert plan({"kind": "hard_mlm"}, student, teacher).needs_teacher is False


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            {"kind": "hidden_mse", "student_layer": 4},
            r"hidden_mse names student_layer 4, but the student has layers 0 to 2 \(0 is its emb",
        ),
        ({"kind": "hidden_cosine", "teacher_layer": -5}, r"teacher_layer -5, but the teacher has"),
        (
            {"kind": "value_relations", "student_layer": 0},
            r"student_layer 0, but the student has layers 1 to 2 \(its embeddings have no att",
        ),
        ({"kind": "attention_scores"}, r"student has 2 heads and the teacher 4: set student.heads"),
        ({"kind": "attention_distributions"}, "compares head by head"),
        ({"kind": "relations", "heads": 3}, r"has 3 heads, which do not divide the student's .*16"),
        (
            {"kind": "hidden_mse", "projection": False},
            r"states of width 16 with the teacher's 32: set its projection to true",
        ),
        ({"kind": "embeddings", "projection": False}, "objective embeddings compares states"),
        ({"kind": "soft_targets"}, "has no MLM head"),
    ],
)
def test_mismatched_objectives_refused(
    tiny_shape: BertShape, objective: dict[str, Any], message: str
) -> None:
    """Objectives that do not match student and teacher are refused in one line."""
    student = replace(tiny_shape, width=16, heads=2)
    with pytest.raises(UserError, match=message) as refusal:
        plan(objective, student, tiny_shape, has_mlm_head=False)
    assert "\n" not in str(refusal.value)


def test_relation_heads_divide_teacher_width(tiny_shape: BertShape) -> None:
    """Relation heads must divide the teacher's width, too."""
    student = replace(tiny_shape, width=48, heads=4)
    with pytest.raises(UserError, match="do not divide the teacher's width 32"):
        plan({"kind": "relations", "heads": 12}, student, tiny_shape)


def test_stages_share_projections(tiny_shape: BertShape) -> None:
    """Objectives and stages share one projection for each pair of layers."""
    student = replace(tiny_shape, width=16)
    mse, cosine = (
        {"kind": kind, "student_layer": [1, 2], "teacher_layer": [1, 2]}
        for kind in ("hidden_mse", "hidden_cosine")
    )
    stages = stages_of([stage([mse]), stage([cosine, {"kind": "embeddings"}])])
    plans = plan_stages(stages, student, tiny_shape, True)
    expected = {"layer0_to_0": 32, "layer1_to_1": 32, "layer2_to_2": 32}
    assert find_projections(plans, student, tiny_shape) == expected
    assert find_projections(plans, tiny_shape, tiny_shape) == {}


def test_stage_at_step() -> None:
    """Each step belongs to the stage that covers it."""
    stages = stages_of([stage([{"kind": kind}], 10) for kind in ("relations", "hard_mlm")])
    assert [one.first_step for one in stages] == [0, 10]
    kinds = [stage_at(stages, step).objectives[0].kind for step in (0, 9, 10, 19)]
    assert kinds == ["relations", "relations", "hard_mlm", "hard_mlm"]


def test_schedules_restart_with_stage() -> None:
    """Schedules of weights and temperatures start with the first step of their stage."""
    soft = {
        "kind": "soft_targets",
        "temperature": 4.0,
        "temperature_schedule": {"to": 1.0},
        "schedule": {"to": 3.0},
    }
    stages = stages_of([stage([{"kind": "hard_mlm"}], 7), stage([soft, {"kind": "hard_mlm"}], 4)])
    second = stages[1]
    (objective, _) = second.objectives
    assert isinstance(objective, SoftTargets)
    assert [second.weights(step)[0] for step in range(7, 11)] == pytest.approx([1, 5 / 3, 7 / 3, 3])
    assert [second.weights(step)[1] for step in range(7, 11)] == [1, 1, 1, 1]
    assert [second.temperature(objective, s) for s in range(7, 11)] == pytest.approx([4, 3, 2, 1])


def test_zero_weight_objectives_dropped() -> None:
    """Objectives whose weight is always 0 are not part of a stage."""
    idle = {"kind": "relations", "weight": 0.0}
    (one,) = stages_of([stage([idle, {"kind": "hard_mlm"}])])
    assert [objective.kind for objective in one.objectives] == ["hard_mlm"]
