"""Losses are divided once, by global counts: how a batch is split changes no gradient.

Nor does it with dropout, whose masks belong to rows.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain.config.phases import phases_of
from pretrain.config.run import MaskOptions
from pretrain.config.train import TrainOptions
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import BatchSource
from pretrain.data.loader import StepDataset
from pretrain.distil.teacher import Teacher
from pretrain.losses.term import normalised_loss, normalised_values
from pretrain.model import Bert, Outputs
from pretrain.model.dropout_rng import dropout_keys
from pretrain.train.task import PretrainingTask, Task
from tests.student_tasks import DISTILBERT, Objectives, make_distillation, stage, terms_of

OpenSource = Callable[..., BatchSource]
Gradients = dict[str, torch.Tensor]
ROWS = 8


def micro_batches(source: BatchSource, world: int, micro: int) -> list[Batch]:
    """Return the micro-batches of all ranks of the first step."""
    return [batch for rank in range(world) for batch in source.step(0, ROWS, rank, world, micro)]


def dropout_of(model: Bert, world: int, micro: int, directions: int = 1) -> list[torch.Tensor]:
    """Return the dropout keys of the micro-batches of all ranks, as the loop makes them."""
    mask = MaskOptions(bidirectional=directions == 2)
    train = TrainOptions(steps=1, batch_rows=ROWS, micro_rows=micro, row_tokens=64)
    return [
        keys
        for rank in range(world)
        for keys in dropout_keys(
            7,
            0,
            StepDataset({}, phases_of(train), mask, rank, world).row_numbers(0),
            model.shape.layers,
            torch.device("cpu"),
        )
    ]


def with_dropout(model: Bert) -> Bert:
    """Return a model of the same weights that drops a third."""
    dropping = Bert(dataclasses.replace(model.shape, dropout=1 / 3))
    dropping.load_state_dict(model.state_dict())
    return dropping


def accumulate(
    task: Task, model: Bert, batches: list[Batch], keys: Sequence[torch.Tensor | None] = ()
) -> tuple[Gradients, torch.Tensor]:
    """Accumulate gradients and values as the loop does; without keys nothing is dropped."""
    counts = {name: sum(b.counts[name] for b in batches) for name in batches[0].counts}
    model.zero_grad()
    values = torch.zeros((), dtype=torch.float64)
    spec = task.at(0)
    for batch, own_keys in zip(batches, keys or [None] * len(batches), strict=True):
        terms = model(batch, spec.terms, own_keys, spec.capture)
        normalised_loss(terms, counts).backward()
        values = values + normalised_values(terms, counts)
    return gradients_of(model), values


def gradients_of(model: Bert) -> Gradients:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def assert_equal_to_rounding(found: Gradients, expected: Gradients) -> None:
    """Allow a few fp32 roundings of each tensor, and of the whole where a tensor has none."""
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        tolerance = 2e-5 * float(gradient.abs().max()) + 3e-7 * largest
        torch.testing.assert_close(found[name].to(gradient), gradient, rtol=0, atol=tolerance)


def mean_of_means(outputs: Outputs, batch: Batch) -> torch.Tensor:
    """Compute the loss of the paper directly: the mean over masked tokens plus that over samples.

    PyTorch ignores the label -100 by itself.
    """
    assert outputs.nsp_logits_S2 is not None
    mlm = F.cross_entropy(outputs.mlm_logits_MV, batch.mlm_labels)
    return mlm + F.cross_entropy(outputs.nsp_logits_S2, batch.nsp_labels)


def distillation_mean(student: Outputs, teacher: Outputs, batch: Batch) -> torch.Tensor:
    """Compute the loss of DistilBERT directly, as means over the batch."""
    masked = batch.mlm_labels >= 0
    soft = F.kl_div(
        F.log_softmax(student.mlm_logits_MV[masked] / 2, dim=-1),
        F.softmax(teacher.mlm_logits_MV[masked] / 2, dim=-1),
        reduction="batchmean",
    )
    real = batch.sample_ids > 0
    away = 1 - F.cosine_similarity(student.hidden_ND[real], teacher.hidden_ND[real], dim=-1)
    hard = F.cross_entropy(student.mlm_logits_MV, batch.mlm_labels)
    return 5 * 4 * soft + 2 * hard + away.mean()


SPLITS = [(1, 8), (1, 4), (1, 1), (2, 4), (2, 2), (4, 1), (8, 1)]


@pytest.mark.parametrize(("world", "micro"), SPLITS)
def test_pretraining_gradient_ignores_split(
    open_source: OpenSource, tiny_model: Bert, world: int, micro: int
) -> None:
    """The gradient of pre-training is the same for any ranks and micro-batches."""
    source = open_source()
    (whole,) = micro_batches(source, 1, ROWS)
    exact = copy.deepcopy(tiny_model).double()
    loss = mean_of_means(exact(whole), whole)
    loss.backward()
    found, values = accumulate(PretrainingTask(), tiny_model, micro_batches(source, world, micro))
    assert_equal_to_rounding(found, gradients_of(exact))
    assert float(values[0] + values[2]) == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize(("world", "micro"), SPLITS)
def test_distillation_gradient_ignores_split(
    open_source: OpenSource, tiny_model: Bert, world: int, micro: int
) -> None:
    """The gradient of distillation is the same for any ranks and micro-batches."""
    source = open_source()
    (whole,) = micro_batches(source, 1, ROWS)
    student, task = make_distillation(tiny_model, stage(DISTILBERT), init=[0])
    exact = copy.deepcopy(student).double()
    with torch.no_grad():
        teacher_outputs = copy.deepcopy(tiny_model).double()(whole)
    loss = distillation_mean(exact(whole), teacher_outputs, whole)
    loss.backward()
    found, values = accumulate(task, student, micro_batches(source, world, micro))
    assert_equal_to_rounding(found, gradients_of(exact))
    soft, mlm, _, cosine = values.tolist()
    assert 5 * soft + 2 * mlm + cosine == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize(("world", "micro"), SPLITS)
@pytest.mark.parametrize("directions", [1, 2])
def test_gradient_with_dropout_ignores_split(
    open_source: OpenSource, tiny_model: Bert, world: int, micro: int, directions: int
) -> None:
    """With dropout, loss and gradient are the same for any ranks and micro-batches."""
    source = open_source(bidirectional=directions == 2)
    model, task = with_dropout(tiny_model), PretrainingTask()
    exact = copy.deepcopy(model).double()
    whole, whole_keys = (micro_batches(source, 1, ROWS), dropout_of(model, 1, ROWS, directions))
    expected, expected_values = accumulate(task, exact, whole, whole_keys)
    plain, _ = accumulate(task, exact, whole)
    name = "bert.encoder.layer.0.output.dense.weight"
    assert (expected[name] - plain[name]).norm() > 0.3 * plain[name].norm(), "dropout is on"
    batches, keys = micro_batches(source, world, micro), dropout_of(model, world, micro, directions)
    found, values = accumulate(task, model, batches, keys)
    assert_equal_to_rounding(found, expected)
    torch.testing.assert_close(values, expected_values, rtol=1e-6, atol=0)


def one_direction(batch: Batch, reverse: bool) -> Batch:
    """Return one half of a batch of both directions, as a batch of its own."""
    size, masked = len(batch.input_ids) // 2, len(batch.masked_positions) // 2
    half, tokens = (slice(n, None) if reverse else slice(n) for n in (size, masked))
    return dataclasses.replace(
        batch,
        input_ids=batch.input_ids[half],
        token_types=batch.token_types[half],
        positions=batch.positions[half],
        sample_ids=batch.sample_ids[half],
        cu_seqlens=batch.cu_seqlens[: len(batch.cu_seqlens) // 2 + 1],
        masked_positions=batch.masked_positions[tokens] - (size if reverse else 0),
        mlm_labels=batch.mlm_labels[tokens],
        directions=1,
    )


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (2, 2), (8, 1)])
def test_directions_add_up(
    open_source: OpenSource, tiny_model: Bert, world: int, micro: int
) -> None:
    """With `mask.bidirectional`, the losses of both directions are summed, for any split."""
    source = open_source(bidirectional=True)
    (whole,) = micro_batches(source, 1, ROWS)
    exact = copy.deepcopy(tiny_model).double()
    forward, backward = (one_direction(whole, reverse) for reverse in (False, True))
    (plain,) = micro_batches(open_source(), 1, ROWS)
    assert torch.equal(forward.input_ids, plain.input_ids), "the forward half is the usual batch"
    assert whole.counts == plain.counts
    reversed_loss = F.cross_entropy(exact(backward).mlm_logits_MV, backward.mlm_labels)
    loss = mean_of_means(exact(forward), forward) + reversed_loss
    loss.backward()
    pieces = micro_batches(source, world, micro)
    found, values = accumulate(PretrainingTask(), tiny_model, pieces)
    assert_equal_to_rounding(found, gradients_of(exact))
    tags = [term.tag for term in tiny_model(pieces[0], PretrainingTask().terms)]
    assert tags == [
        "loss/mlm", "accuracy/mlm", "loss/mlm_reversed", "accuracy/mlm_reversed",
        "loss/nsp", "accuracy/nsp",
    ]  # fmt: skip
    assert float(values[0] + values[2] + values[4]) == pytest.approx(loss.item(), rel=1e-6)
    assert float(values[2]) == pytest.approx(reversed_loss.item(), rel=1e-6)


def test_distillation_in_both_directions(open_source: OpenSource, tiny_model: Bert) -> None:
    """The gradient of a student is the sum of those of both directions."""
    (whole,) = micro_batches(open_source(bidirectional=True), 1, ROWS)
    student, task = make_distillation(tiny_model, stage(DISTILBERT), init=[0])
    found, _ = accumulate(task, student, [whole])
    expected: Gradients = {}
    for reverse in (False, True):
        half, _ = accumulate(task, student, [one_direction(whole, reverse)])
        expected = {name: half[name] + expected.get(name, 0) for name in half}
    assert_equal_to_rounding(found, expected)


def test_micro_batch_without_masked_tokens(open_source: OpenSource, tiny_model: Bert) -> None:
    """A micro-batch without masked tokens changes neither loss nor gradient."""
    source = open_source(rate=0.01)
    pieces = micro_batches(source, 1, 1)
    masked = [piece.counts["masked"] for piece in pieces]
    assert 0 in masked and sum(masked) > 0
    (whole,) = micro_batches(source, 1, ROWS)
    mean_of_means(tiny_model(whole), whole).backward()
    expected = gradients_of(tiny_model)
    found, values = accumulate(PretrainingTask(), tiny_model, pieces)
    assert_equal_to_rounding(found, expected)
    assert torch.isfinite(values).all()


def test_step_without_masked_tokens(open_source: OpenSource, tiny_model: Bert) -> None:
    """A step without masked tokens has the NSP gradient alone, and no NaN."""
    whole = open_source().rows(np.arange(2), 2)
    nothing = torch.full_like(whole.mlm_labels, IGNORE_INDEX)
    counts = {**whole.counts, "masked": 0}
    bare = dataclasses.replace(whole, mlm_labels=nothing, counts=counts)
    outputs = tiny_model(bare)
    assert outputs.nsp_logits_S2 is not None
    F.cross_entropy(outputs.nsp_logits_S2, bare.nsp_labels).backward()
    expected = gradients_of(tiny_model)
    found, values = accumulate(PretrainingTask(), tiny_model, [bare])
    assert_equal_to_rounding(found, expected)
    assert values[0] == 0


def test_blank_rows_change_nothing(open_source: OpenSource, tiny_model: Bert) -> None:
    """Rows that fill up a micro-batch change no gradient."""
    source = open_source()
    tight, roomy = (source.rows(np.arange(3), size) for size in (3, 6))
    expected, _ = accumulate(PretrainingTask(), tiny_model, [tight])
    found, _ = accumulate(PretrainingTask(), tiny_model, [roomy])
    assert_equal_to_rounding(found, expected)


@pytest.mark.parametrize("kept", [(1,), (1, 2), (0, 1, 2)])
def test_teacher_runs_only_when_needed(
    open_source: OpenSource, tiny_model: Bert, monkeypatch: pytest.MonkeyPatch, kept: tuple[int]
) -> None:
    """The teacher computes what a term with a weight reads, and nothing else."""
    objectives: Objectives = [
        one if number in kept else one | {"weight": 0.0} for number, one in enumerate(DISTILBERT)
    ]
    student, task = make_distillation(tiny_model, stage(objectives), init=[1])
    calls = []
    whole, states = Teacher.__call__, Teacher.states
    monkeypatch.setattr(Teacher, "__call__", lambda *a: calls.append("logits") or whole(*a))
    monkeypatch.setattr(Teacher, "states", lambda *a: calls.append("states") or states(*a))
    terms = terms_of(student, task, open_source().rows(np.arange(1), 1))
    assert calls == (["logits"] if 0 in kept else ["states"] if 2 in kept else [])
    tags = {"loss/mlm", "accuracy/mlm"}
    names = ("loss/soft_targets", "loss/mlm", "loss/hidden_cosine")
    assert {term.tag for term in terms} == tags | {names[number] for number in kept}


def test_teacher_has_no_gradient(open_source: OpenSource, tiny_model: Bert) -> None:
    """A teacher is in evaluation mode, and its parameters need no gradient."""
    teacher = Teacher(tiny_model.train(), torch.device("cpu"), "fp32")
    outputs = teacher(open_source().rows(np.arange(1), 1))
    assert not tiny_model.training and not outputs.hidden_ND.requires_grad
    assert not any(parameter.requires_grad for parameter in tiny_model.parameters())
