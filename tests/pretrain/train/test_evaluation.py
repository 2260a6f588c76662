"""Validation: the same questions and the same figures, however the rows are spread."""

import dataclasses
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distributed import Cluster
from pretrain.losses.term import Objective, Term
from pretrain.model import Bert, BertShape, Outputs, initialise
from pretrain.train.evaluation import ValidationSet

OpenSource = Callable[..., BatchSource]
ROWS = 7


@pytest.fixture
def source(open_source: OpenSource) -> BatchSource:
    held_out = open_source("validation")
    assert held_out.epoch_index(0).num_rows > ROWS
    return held_out


@pytest.fixture
def model(tiny_shape: BertShape, alone: Cluster) -> Bert:
    """Return a model in training mode, with dropout that would spoil every figure."""
    model = Bert(dataclasses.replace(tiny_shape, dropout=0.3))
    initialise(model, seed=2)
    return model.to(alone.device).train()


class OneOfTwo(Cluster):
    """A rank that keeps what it would add up with the other."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank, rank, 2)
        self.device = torch.device("cpu")
        self.numbers: list[int] = []
        self.totals = torch.zeros(0)

    def sum(self, numbers: list[int]) -> list[int]:
        self.numbers = numbers
        return numbers

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        self.totals = tensor
        return tensor


def test_figures_are_means_over_all_rows(source: BatchSource, model: Bert, alone: Cluster) -> None:
    batch = source.rows(np.arange(ROWS), ROWS).to(alone.device)
    # An untrained model is never right; this one names the most frequent word.
    asked, pairs = batch.mlm_labels != IGNORE_INDEX, batch.nsp_labels != IGNORE_INDEX
    model.cls.predictions.bias.data[batch.mlm_labels[asked].mode().values] = 9.0
    found = ValidationSet(source, ROWS, 3, alone).evaluate(model)
    with torch.no_grad():
        outputs: Outputs = model.eval()(batch)
    assert outputs.nsp_logits_S2 is not None
    words, labels = outputs.mlm_logits_MV[asked], batch.mlm_labels[asked]
    sentences, answers = outputs.nsp_logits_S2[pairs], batch.nsp_labels[pairs]
    expected = {
        "loss_mlm": F.cross_entropy(words, labels),
        "accuracy_mlm": (words.argmax(-1) == labels).double().mean(),
        "loss_nsp": F.cross_entropy(sentences, answers),
        "accuracy_nsp": (sentences.argmax(-1) == answers).double().mean(),
    }
    assert list(found) == [f"validation/{name}" for name in expected]
    assert list(found.values()) == pytest.approx([x.item() for x in expected.values()], rel=1e-5)
    assert all(value > 0 for value in found.values())


def test_figures_are_the_same_for_any_micro_batch(
    source: BatchSource, model: Bert, alone: Cluster
) -> None:
    figures = [ValidationSet(source, ROWS, micro, alone).evaluate(model) for micro in (1, 2, 7, 16)]
    for other in figures[1:]:
        assert other == pytest.approx(figures[0], rel=1e-6)


def test_reversed_samples_have_figures_of_their_own(
    open_source: OpenSource, model: Bert, alone: Cluster
) -> None:
    both = ValidationSet(open_source("validation", bidirectional=True), ROWS, 2, alone)
    plain = ValidationSet(open_source("validation"), ROWS, 2, alone).evaluate(model)
    found = both.evaluate(model)
    assert set(found) - set(plain) == {
        "validation/loss_mlm_reversed",
        "validation/accuracy_mlm_reversed",
    }
    assert {tag: found[tag] for tag in plain} == pytest.approx(plain, rel=1e-5)
    # An untrained model finds either direction as hard as the other.
    assert found["validation/loss_mlm_reversed"] == pytest.approx(plain["validation/loss_mlm"], 0.1)


def test_two_ranks_share_the_rows_and_compute_equally_often(
    source: BatchSource, model: Bert, alone: Cluster
) -> None:
    plain = model.cpu()
    calls: Counter[int] = Counter()

    class Counting:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __call__(self, batch: Batch, objective: Objective) -> list[Term]:
            calls[self.rank] += 1
            return plain(batch, objective)

        def train(self, mode: bool) -> object:
            return plain.train(mode)

    ranks = [OneOfTwo(0), OneOfTwo(1)]
    for cluster in ranks:
        # Seven rows in micro-batches of 3: the second micro-batch of the second rank is blank.
        ValidationSet(source, ROWS, 3, cluster).evaluate(Counting(cluster.rank))
    whole = OneOfTwo(0)
    whole.world_size = 1
    ValidationSet(source, ROWS, ROWS, whole).evaluate(plain)
    assert calls == {0: 2, 1: 2}
    assert [sum(pair) for pair in zip(*(c.numbers for c in ranks), strict=True)] == whole.numbers
    shares = [cluster.totals for cluster in ranks]
    torch.testing.assert_close(shares[0] + shares[1], whole.totals, rtol=1e-6, atol=1e-6)
    assert all(share[0] > 0 for share in shares)


def test_evaluation_is_repeatable_and_gives_training_back(
    source: BatchSource, model: Bert, alone: Cluster
) -> None:
    validation = ValidationSet(source, ROWS, 4, alone)
    assert validation.evaluate(model) == validation.evaluate(model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_more_rows_are_asked_for_than_there_are(
    source: BatchSource, model: Bert, alone: Cluster
) -> None:
    available = source.epoch_index(0).num_rows
    found = ValidationSet(source, 10_000, 16, alone).evaluate(model)
    assert found == ValidationSet(source, available, 16, alone).evaluate(model)


def test_a_model_without_that_head_is_not_judged_on_next_sentences(
    source: BatchSource, tiny_shape: BertShape, alone: Cluster
) -> None:
    student = Bert(dataclasses.replace(tiny_shape, next_sentence=False)).to(alone.device)
    found = ValidationSet(source, 2, 2, alone).evaluate(student)
    assert set(found) == {"validation/loss_mlm", "validation/accuracy_mlm"}
