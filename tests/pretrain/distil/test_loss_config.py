"""Stages: a step knows its objectives and what each weighs, from its number alone."""

from typing import Any

import pytest
from pydantic import ValidationError

from pretrain.distil.loss_config import LinearSchedule, SoftTargets, value_at
from pretrain.distil.stage_plan import stage_at, stages_of
from tests.student_tasks import stage


def test_steps_lie_in_their_stages() -> None:
    stages = stages_of([stage([{"kind": kind}], 10) for kind in ("relations", "hard_mlm")])
    assert [one.first_step for one in stages] == [0, 10]
    kinds = [stage_at(stages, step).objectives[0].kind for step in (0, 9, 10, 19)]
    assert kinds == ["relations", "relations", "hard_mlm", "hard_mlm"]


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        (None, [2, 2, 2, 2, 2]),
        (LinearSchedule(to=0), [2, 1.5, 1, 0.5, 0]),
        (LinearSchedule(to=4, steps=3), [2, 3, 4, 4, 4]),
        (LinearSchedule(to=0, steps=1), [0, 0, 0, 0, 0]),
    ],
)
def test_a_number_moves_on_a_line_and_stays(
    course: LinearSchedule | None, expected: list[float]
) -> None:
    assert [value_at(2.0, course, step, 5) for step in range(5)] == pytest.approx(expected)


def test_weights_and_temperatures_begin_anew_with_their_stage() -> None:
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


def test_objectives_that_never_have_a_weight_are_left_out() -> None:
    idle = {"kind": "relations", "weight": 0.0}
    (one,) = stages_of([stage([idle, {"kind": "hard_mlm"}])])
    assert [objective.kind for objective in one.objectives] == ["hard_mlm"]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"kind": "hidden_mse", "student_layer": [1, 2]}, "must name the same number of layers"),
        ({"kind": "hidden_mse", "student_layer": [], "teacher_layer": []}, "same number of layers"),
        ({"kind": "soft_targets", "temperature": 0}, "greater than 0"),
        ({"kind": "soft_targets", "temperature_schedule": {"to": 0}}, "set its end above 0"),
        ({"kind": "soft_targets", "temperature": float("inf")}, "finite number"),
        ({"kind": "soft_targets", "weight": float("nan")}, "finite number"),
        (
            {"kind": "soft_targets", "temperature_schedule": {"to": 1, "steps": 11}},
            "soft_targets takes 11 steps, but its stage has 10",
        ),
        ({"kind": "hard_mlm", "schedule": {"to": 1, "steps": 40}}, "hard_mlm takes 40 steps"),
        ({"kind": "relations", "relations": ["qq", "qq"]}, "name each of them once"),
        ({"kind": "feature_maps", "map_weight": 0}, "are all 0: give one of them a weight"),
        ({"kind": "hard_mlm", "temperature": 2}, "Extra inputs"),
        ({"kind": "hard_mlm", "weight": 0}, "all weights are 0 in the first step"),
        ({"kind": "hard_mlm", "schedule": {"to": 0}}, "all weights are 0 in the last step"),
        ({"kind": "attention"}, "does not match any of the expected tags"),
        ({"kind": "relations", "relations": ["qk"]}, "'qq', 'kk' or 'vv'"),
    ],
)
def test_objectives_that_cannot_be_are_refused(objective: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stage([objective])
