"""Objectives and stages of a recipe: schedules, and options that are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from pretrain.distil.loss_config import LinearSchedule, value_at
from tests.student_tasks import stage


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, [2, 2, 2, 2, 2]),
        (LinearSchedule(to=0), [2, 1.5, 1, 0.5, 0]),
        (LinearSchedule(to=4, steps=3), [2, 3, 4, 4, 4]),
        (LinearSchedule(to=0, steps=1), [0, 0, 0, 0, 0]),
    ],
)
def test_linear_schedule_values(schedule: LinearSchedule | None, expected: list[float]) -> None:
    """A scheduled value is linear in the step and constant after its last step."""
    assert [value_at(2.0, schedule, step, 5) for step in range(5)] == pytest.approx(expected)


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
def test_invalid_objectives_refused(objective: dict[str, Any], message: str) -> None:
    """Invalid objectives and schedules are refused with a message that names the problem."""
    with pytest.raises(ValidationError, match=message):
        stage([objective])
