"""The forecast of what comparing layers keeps, against the tensors that autograd saves."""

from typing import Any

import pytest
import torch

from pretrain.data.batch import Batch
from pretrain.distil.memory_estimate import layer_loss_bytes, layer_loss_parts
from pretrain.model import Bert
from pretrain.monitoring.memory_estimate import Activations, Part
from pretrain.train.task import PretrainingTask
from tests.student_tasks import make_distillation, narrower, stage, terms_of

HARD = {"kind": "hard_mlm"}


def activations(student: Bert, batch: Batch) -> Activations:
    return Activations(
        shape=student.shape,
        precision="fp32",
        tokens=batch.input_ids.numel(),
        masked=len(batch.masked_positions),
        row_tokens=batch.row_tokens,
    )


def saved_bytes(
    teacher: Bert, objectives: list[dict[str, Any]], batch: Batch, **options: Any
) -> int:
    """Return what autograd holds between forward and backward pass."""
    student, task = make_distillation(teacher, stage(objectives), **options)
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms = terms_of(student, task, batch)
    # The graph is alive until here, so no address was given away twice.
    assert terms[0].total.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("kind", "options", "least"),
    [
        ("relations", {"heads": 4}, 1.0),
        ("hidden_cosine", {}, 1.0),
        ("feature_maps", {}, 1.0),
        ("hidden_mse", {}, 0.5),  # the distance alone
    ],
)
def test_what_comparing_keeps_is_that_of_the_formula(
    kind: str, options: dict[str, Any], least: float, tiny_model: Bert, packed: Batch
) -> None:
    compared = {"kind": kind, **options}
    student, task = make_distillation(tiny_model, stage([HARD, compared]))
    expected = layer_loss_bytes(task.at(0), activations(student, packed))
    found = saved_bytes(tiny_model, [HARD, compared], packed)
    found -= saved_bytes(tiny_model, [HARD], packed)
    # Numbers of each place, such as norms, are left out of the formula: a few percent here.
    assert least <= found / expected < least + 0.1


@pytest.mark.parametrize("kind", ["hidden_cosine", "feature_maps", "hidden_mse"])
def test_the_states_of_a_narrower_student_count_in_the_width_of_its_teacher(
    kind: str, tiny_model: Bert, packed: Batch
) -> None:
    half = narrower(tiny_model.shape)
    objectives = [HARD, {"kind": kind}]
    student, task = make_distillation(
        tiny_model, stage(objectives), init="random", layers=2, **half
    )
    expected = layer_loss_bytes(task.at(0), activations(student, packed))
    assert expected == 2 * 4 * packed.input_ids.numel() * tiny_model.shape.width
    found = saved_bytes(tiny_model, objectives, packed, init="random", layers=2, **half)
    found -= saved_bytes(tiny_model, [HARD], packed, init="random", layers=2, **half)
    # The states themselves, or the distance alone, at the narrower width that goes in as well.
    assert 0.4 <= found / expected < 1.6


def test_the_lesson_that_keeps_most_counts(tiny_model: Bert, packed: Batch) -> None:
    stages = stage([{"kind": "relations", "heads": 4}], 5), stage([HARD], 5)
    student, task = make_distillation(tiny_model, *stages)
    act = activations(student, packed)
    relations = 3 * 4 * act.tokens * act.shape.width
    parts = layer_loss_parts([task.at(0), task.at(9)], act)
    assert parts == [Part("layer losses", relations)]


def test_a_run_that_compares_no_layers_has_no_such_line(tiny_model: Bert, packed: Batch) -> None:
    assert layer_loss_parts([PretrainingTask().at(0)], activations(tiny_model, packed)) == []
