"""Losses on logits in numpy and fp64, and a comparison of gradients with central differences."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

Array = npt.NDArray[np.float64]


def draw(*shape: int, seed: int = 0) -> Array:
    """Return numbers that fp32 holds exactly, so that only the computation can differ."""
    return np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32).astype(np.float64)


def cross_entropy(logits: Array, labels: npt.NDArray[np.int64]) -> float:
    """Return the summed -log p(label)."""
    return float(-_log_softmax(logits)[np.arange(len(logits)), labels].sum())


def divergence(student: Array, teacher: Array, temperature: float) -> float:
    """Return T² Σ KL(p_T ‖ p_S), p = softmax(z / T)."""
    p, q = (np.exp(_log_softmax(logits / temperature)) for logits in (teacher, student))
    return float(temperature**2 * (p * np.log(p / q)).sum())


def cosine(student: Array, teacher: Array, is_token: npt.NDArray[np.bool_]) -> float:
    """Return Σ (1 - cos) over real tokens."""
    norms = np.linalg.norm(student, axis=-1) * np.linalg.norm(teacher, axis=-1)
    return float((1 - (student * teacher).sum(axis=-1) / norms)[is_token].sum())


def assert_matches(
    loss: Callable[[torch.Tensor], torch.Tensor], reference: Callable[[Array], float], at: Array
) -> None:
    """Compare a loss and its gradient with a reference and its central differences."""
    point = torch.tensor(at, dtype=torch.float32, requires_grad=True)
    value = loss(point)
    assert value.dtype == torch.float32 and value.shape == ()
    assert value.item() == pytest.approx(reference(at), rel=1e-5, abs=1e-5)
    value.backward()
    differences, step = np.zeros_like(at), 1e-5
    for index in np.ndindex(at.shape):
        nudge = np.zeros_like(at)
        nudge[index] = step
        differences[index] = (reference(at + nudge) - reference(at - nudge)) / (2 * step)
    assert np.abs(differences).max() > 0.1
    np.testing.assert_allclose(point.grad, differences, rtol=1e-4, atol=1e-5)


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
