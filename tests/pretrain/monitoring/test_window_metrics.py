"""The window between two log lines holds steps of several stages and of changing weights."""

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


def test_a_term_is_a_mean_over_the_steps_that_had_it(alone: Cluster) -> None:
    window = MetricsWindow(alone)
    add(window, [term("layers", 4.0, 1.0)], [term("layers", 8.0, 1.0)])
    add(window, [term("words", 2.0, 0.5), term("layers", 4.0, 1.0)])
    add(window, [term("words", 6.0, 0.5)])
    assert window.steps == 3
    figures = window.close()
    assert figures["loss/layers"] == pytest.approx((3 + 1) / 2)
    assert figures["loss/words"] == pytest.approx((0.5 + 1.5) / 2)
    assert figures["loss/total"] == pytest.approx((3 + (0.25 + 1) + 0.75) / 3)
    assert window.steps == 0


def test_the_loss_is_weighted_as_each_step_was(alone: Cluster) -> None:
    window = MetricsWindow(alone)
    for weight in (1.0, 0.5, 0.0):
        add(window, [term("words", 8.0, weight)])
    figures = window.close()
    assert figures["loss/words"] == pytest.approx(2.0)
    assert figures["loss/total"] == pytest.approx(2.0 * 1.5 / 3)
