"""The window between two log lines, over several stages and changing weights."""

import pytest
import torch

from pretrain.distributed import Cluster
from pretrain.losses.term import Term
from pretrain.monitoring.window_metrics import MetricsWindow

COUNTS = {"masked": 2, "tokens": 4, "samples": 1}


def term(tag: str, total: float, weight: float) -> Term:
    return Term(f"loss/{tag}", torch.tensor(total), "tokens", weight)


def add(window: MetricsWindow, *micro_batches: list[Term]) -> None:
    for terms in micro_batches:
        window.add_terms(terms, COUNTS)
    window.add_step(tokens=4, padded_tokens=8, flops=1, data_wait_s=0.0)


def test_terms_are_means_over_their_steps(alone: Cluster) -> None:
    """A term is a mean over the steps that had it."""
    window = MetricsWindow(alone)
    add(window, [term("layers", 4.0, 1.0)], [term("layers", 8.0, 1.0)])
    add(window, [term("mlm", 2.0, 0.5), term("layers", 4.0, 1.0)])
    add(window, [term("mlm", 6.0, 0.5)])
    assert window.steps == 3
    figures = window.close()
    assert figures["loss/layers"] == pytest.approx((3 + 1) / 2)
    assert figures["loss/mlm"] == pytest.approx((0.5 + 1.5) / 2)
    assert figures["loss/total"] == pytest.approx((3 + (0.25 + 1) + 0.75) / 3)
    assert window.steps == 0


def test_loss_uses_weights_of_each_step(alone: Cluster) -> None:
    """The total loss uses the weights of each step."""
    window = MetricsWindow(alone)
    for weight in (1.0, 0.5, 0.0):
        add(window, [term("mlm", 8.0, weight)])
    figures = window.close()
    assert figures["loss/mlm"] == pytest.approx(2.0)
    assert figures["loss/total"] == pytest.approx(2.0 * 1.5 / 3)
