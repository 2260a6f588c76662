"""The trained parameters of a stage are those with a gradient, for trained objective."""

import dataclasses
from typing import Any, Literal

import pytest
import torch

from pretrain.data.batch import Batch
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, BertShape, initialise
from tests.student_tasks import Objectives, make_distillation, stage, terms_of

NARROW = {"width": 16, "heads": 4, "feed_forward": 24}
OBJECTIVES: Objectives = [
    {"kind": "soft_targets"},
    {"kind": "hard_mlm"},
    {"kind": "next_sentence"},
    {"kind": "hidden_cosine"},
    {"kind": "hidden_mse", "student_layer": [1, 2], "teacher_layer": [2, 3]},
    {"kind": "hidden_mse", "student_layer": 1, "teacher_layer": 2},
    {"kind": "embeddings"},
    {"kind": "attention_scores", "student_layer": [1, 2], "teacher_layer": [2, 3]},
    {"kind": "attention_distributions"},
    {"kind": "value_relations"},
    {"kind": "relations", "heads": 8, "student_layer": 2},
    {"kind": "relations", "heads": 8, "relations": ["vv"]},
    {"kind": "feature_maps", "mean_weight": 50.0},
]


def names_with_gradient(student: Bert, task: Any, batch: Batch, step: int = 0) -> set[str]:
    student.zero_grad()
    normalised_loss(terms_of(student, task, batch, step), batch.counts).backward()
    return {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.fixture(params=["post", "pre"])
def teacher(tiny_shape: BertShape, request: pytest.FixtureRequest) -> Bert:
    norm: Literal["post", "pre"] = request.param
    model = Bert(dataclasses.replace(tiny_shape, layers=4, norm=norm))
    initialise(model, seed=5)
    generator = torch.Generator().manual_seed(6)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: "-".join(map(str, one.values())))
def test_trained_parameters_match_gradients(
    teacher: Bert, packed: Batch, objective: dict[str, Any]
) -> None:
    """The parameters that an objective trains are those with a gradient."""
    student, task = make_distillation(teacher, stage([objective]), layers=3, **NARROW)
    (trained,) = task.trained(student)
    found = names_with_gradient(student, task, packed)
    # Softmax is invariant to the key bias: its gradient is rounding, or 0.
    exact = {name for name in trained if not name.endswith("key.bias")}
    assert exact <= found <= trained


def test_stage_trains_union_of_objectives(teacher: Bert, packed: Batch) -> None:
    """A stage trains the union of the parameters of its objectives."""
    first, second = [OBJECTIVES[5], OBJECTIVES[7]], [OBJECTIVES[0], OBJECTIVES[2]]
    student, task = make_distillation(
        teacher, stage(first, 3), stage(second, 3), layers=3, **NARROW
    )
    trained = task.trained(student)
    assert [task.at(step).stage for step in range(6)] == [0, 0, 0, 1, 1, 1]
    for number, step in enumerate((0, 3)):
        found = names_with_gradient(student, task, packed, step)
        assert found - trained[number] == set()
        assert all(name.endswith("key.bias") for name in trained[number] - found)
    assert trained[0] - trained[1] == {
        f"projections.layer1_to_2.{part}" for part in ("weight", "bias")
    }
