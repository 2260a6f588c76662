"""Validation: the same masked tokens and the same scores, however the rows are spread."""

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
from pretrain.model.captured_states import Capture
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
    """A rank that records what it would sum with the other."""

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


def test_scores_are_means_over_all_rows(source: BatchSource, model: Bert, alone: Cluster) -> None:
    """Losses and accuracies equal those of one batch with all rows."""
    batch = source.rows(np.arange(ROWS), ROWS).to(alone.device)
    # An untrained model is never right; this one always predicts the most frequent label.
    masked, pairs = batch.mlm_labels != IGNORE_INDEX, batch.nsp_labels != IGNORE_INDEX
    model.cls.predictions.bias.data[batch.mlm_labels[masked].mode().values] = 9.0
    found = ValidationSet(source, ROWS, 3, alone).evaluate(model)
    with torch.no_grad():
        outputs: Outputs = model.eval()(batch)
    assert outputs.nsp_logits_S2 is not None
    logits, labels = outputs.mlm_logits_MV[masked], batch.mlm_labels[masked]
    nsp_logits, nsp_labels = outputs.nsp_logits_S2[pairs], batch.nsp_labels[pairs]
    expected = {
        "loss_mlm": F.cross_entropy(logits, labels),
        "accuracy_mlm": (logits.argmax(-1) == labels).double().mean(),
        "accuracy_mlm_baseline": (labels == labels.mode().values).double().mean(),
        "loss_nsp": F.cross_entropy(nsp_logits, nsp_labels),
        "accuracy_nsp": (nsp_logits.argmax(-1) == nsp_labels).double().mean(),
    }
    assert list(found) == [f"validation/{name}" for name in expected]
    assert list(found.values()) == pytest.approx([x.item() for x in expected.values()], rel=1e-5)
    assert all(value > 0 for value in found.values())
    assert found["validation/accuracy_mlm"] == found["validation/accuracy_mlm_baseline"]


def test_baseline_is_most_frequent_label(source: BatchSource, alone: Cluster) -> None:
    """No constant prediction has a higher accuracy, whatever the micro-batches are."""
    labels = source.rows(np.arange(ROWS), ROWS).mlm_targets[1].tolist()
    ((token, count),) = Counter(labels).most_common(1)
    for micro_rows in (1, 3, ROWS):
        found = ValidationSet(source, ROWS, micro_rows, alone).baseline
        assert found.accuracy == pytest.approx(count / len(labels))
        assert labels.count(found.token) == labels.count(token)


def test_baseline_sums_labels_over_ranks(source: BatchSource) -> None:
    """Each rank contributes the labels of its own rows."""
    ranks = [OneOfTwo(0), OneOfTwo(1)]
    for cluster in ranks:
        assert ValidationSet(source, ROWS, 3, cluster).baseline.accuracy > 0
    counted = ranks[0].totals + ranks[1].totals
    labels = source.rows(np.arange(ROWS), ROWS).mlm_targets[1]
    assert torch.equal(counted, torch.bincount(labels, minlength=len(counted)))


def test_scores_do_not_depend_on_micro_batches(
    source: BatchSource, model: Bert, alone: Cluster
) -> None:
    """Scores are the same for any micro-batch."""
    figures = [ValidationSet(source, ROWS, micro, alone).evaluate(model) for micro in (1, 2, 7, 16)]
    for other in figures[1:]:
        assert other == pytest.approx(figures[0], rel=1e-6)


def test_reversed_samples_have_own_scores(
    open_source: OpenSource, model: Bert, alone: Cluster
) -> None:
    """With `mask.bidirectional`, the reversed direction has a loss and an accuracy of its own."""
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


def test_two_ranks_divide_rows_and_passes(source: BatchSource, model: Bert, alone: Cluster) -> None:
    """Two ranks divide the rows and compute as many forward passes."""
    plain = model.cpu()
    calls: Counter[int] = Counter()

    class Counting:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __call__(
            self, batch: Batch, objective: Objective, dropout_keys: None, capture: Capture
        ) -> list[Term]:
            calls[self.rank] += 1
            return plain(batch, objective, dropout_keys, capture)

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


def test_evaluation_is_repeatable(source: BatchSource, model: Bert, alone: Cluster) -> None:
    """Evaluation is repeatable, and leaves the model in training mode without gradients."""
    validation = ValidationSet(source, ROWS, 4, alone)
    assert validation.evaluate(model) == validation.evaluate(model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rows_are_limited_by_the_split(source: BatchSource, model: Bert, alone: Cluster) -> None:
    """A set of more rows than the split has takes them all."""
    available = source.epoch_index(0).num_rows
    found = ValidationSet(source, 10_000, 16, alone).evaluate(model)
    assert found == ValidationSet(source, available, 16, alone).evaluate(model)


def test_no_nsp_scores_without_nsp_head(
    source: BatchSource, tiny_shape: BertShape, alone: Cluster
) -> None:
    """A model without an NSP head has no NSP scores."""
    student = Bert(dataclasses.replace(tiny_shape, next_sentence=False)).to(alone.device)
    found = ValidationSet(source, 2, 2, alone).evaluate(student)
    expected = ("loss_mlm", "accuracy_mlm", "accuracy_mlm_baseline")
    assert set(found) == {f"validation/{name}" for name in expected}
