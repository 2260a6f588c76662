"""Objectives, each against numpy in fp64: values by formula, gradients by small differences."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.kernels.dispatch import choose_kernels
from pretrain.losses.hidden import cosine_sum
from pretrain.losses.mlm_nsp import cross_entropy, pretraining_terms, word_losses_of
from pretrain.losses.soft_targets import soft_target_sum
from pretrain.losses.term import Term, normalised_loss, normalised_values
from pretrain.model import Outputs

Array = npt.NDArray[np.float64]
M, V = 5, 7
LABELS = np.array([0, 6, 3, 3, 1])


def draw(*shape: int, seed: int = 0) -> Array:
    """Return numbers that fp32 holds exactly, so that only the computation can differ."""
    return np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32).astype(np.float64)


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def numpy_cross_entropy(logits: Array) -> float:
    return float(-log_softmax(logits)[np.arange(len(logits)), LABELS].sum())


def numpy_divergence(student: Array, teacher: Array, temperature: float) -> float:
    p, q = (np.exp(log_softmax(logits / temperature)) for logits in (teacher, student))
    return float(temperature**2 * (p * np.log(p / q)).sum())


def numpy_cosine(student: Array, teacher: Array, is_token: npt.NDArray[np.bool_]) -> float:
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


def test_cross_entropy_is_summed() -> None:
    labels = torch.tensor(LABELS)
    assert_matches(lambda x: cross_entropy(x, labels).loss, numpy_cross_entropy, draw(M, V))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_soft_targets_are_the_divergence_times_temperature_squared(temperature: float) -> None:
    teacher = draw(M, V, seed=1)
    fixed = torch.tensor(teacher, dtype=torch.float32)
    assert_matches(
        lambda x: soft_target_sum(x, fixed, temperature),
        lambda x: numpy_divergence(x, teacher, temperature),
        draw(M, V),
    )


def test_soft_targets_cost_nothing_where_both_agree() -> None:
    logits = torch.tensor(draw(M, V), dtype=torch.float32, requires_grad=True)
    # A constant added to all logits of a token changes no probability.
    loss = soft_target_sum(logits, logits.detach() + 3.0, 2.0)
    loss.backward()
    assert abs(loss.item()) < 1e-5
    assert logits.grad is not None and logits.grad.abs().max() < 1e-5


def test_the_size_of_the_soft_gradient_outlasts_a_high_temperature() -> None:
    student, teacher = (torch.tensor(draw(M, V, seed=s), dtype=torch.float32) for s in (0, 1))
    student.requires_grad_()
    soft_target_sum(student, teacher, 500.0).backward()
    # Hinton et al., section 2.1: towards high temperature it is the difference of the centred
    # logits over V, whatever the temperature.
    centred = [logits - logits.mean(dim=-1, keepdim=True) for logits in (student, teacher)]
    expected = (centred[0] - centred[1]).detach() / V
    torch.testing.assert_close(student.grad, expected, rtol=0.05, atol=0.01)


def test_cosine_ignores_length_and_padding() -> None:
    teacher = draw(8, 6, seed=1)
    is_token = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    fixed, mask = torch.tensor(teacher, dtype=torch.float32), torch.tensor(is_token)
    student = draw(8, 6)
    assert_matches(
        lambda x: cosine_sum(x, fixed, mask), lambda x: numpy_cosine(x, teacher, is_token), student
    )
    point = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    cosine_sum(point, fixed, mask).backward()
    assert point.grad is not None and not point.grad[~mask].any()
    assert cosine_sum(3 * fixed, fixed, mask).item() == pytest.approx(0, abs=1e-5)
    assert cosine_sum(-fixed, fixed, mask).item() == pytest.approx(2 * 4, rel=1e-5)


@pytest.mark.parametrize("size", [1e-30, 0.0])
def test_cosine_of_vanishing_states_is_finite(size: float) -> None:
    point = torch.full((2, 4), size, requires_grad=True)
    cosine_sum(point, torch.ones(2, 4), torch.ones(2, dtype=torch.bool)).backward()
    assert point.grad is not None and torch.isfinite(point.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_summed_in_fp32(dtype: torch.dtype) -> None:
    low, other = (torch.tensor(draw(M, V, seed=s)).to(dtype) for s in (0, 1))
    wide, other_wide = (logits.double().numpy() for logits in (low, other))
    losses = [
        (cross_entropy(low, torch.tensor(LABELS)).loss, numpy_cross_entropy(wide)),
        (soft_target_sum(low, other, 2.0), numpy_divergence(wide, other_wide, 2.0)),
        (
            cosine_sum(low, other, torch.ones(M, dtype=torch.bool)),
            numpy_cosine(wide, other_wide, np.ones(M, bool)),
        ),
    ]
    for loss, expected in losses:
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0]], requires_grad=True)
    label = torch.tensor([1])
    total = cross_entropy(logits, label).loss + soft_target_sum(logits, -logits.detach(), 1.0)
    total.backward()
    assert torch.isfinite(total) and logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_nothing_masked_costs_nothing() -> None:
    logits = torch.zeros(0, V, requires_grad=True)
    total = cross_entropy(logits, torch.zeros(0, dtype=torch.int64)).loss
    total = total + soft_target_sum(logits, torch.zeros(0, V), 2.0)
    total.backward()
    assert total.item() == 0


def test_hits_are_counted() -> None:
    logits = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 5.0]])
    assert cross_entropy(logits, torch.tensor([1, 1, 1])).correct.item() == 2.0


def test_what_fills_a_list_up_has_neither_loss_nor_gradient() -> None:
    point = torch.tensor(draw(M + 3, V), dtype=torch.float32, requires_grad=True)
    labels = torch.tensor([*LABELS, *[IGNORE_INDEX] * 3])
    teacher = torch.tensor(draw(M + 3, V, seed=1), dtype=torch.float32)
    found = cross_entropy(point, labels)
    soft = soft_target_sum(point, teacher, 2.0, labels != IGNORE_INDEX)
    (found.loss + soft).backward()
    gradient = point.grad
    point.grad = None
    alone = cross_entropy(point[:M], labels[:M])
    soft_alone = soft_target_sum(point[:M], teacher[:M], 2.0)
    (alone.loss + soft_alone).backward()
    torch.testing.assert_close((*found, soft), (*alone, soft_alone))
    torch.testing.assert_close(gradient, point.grad)
    assert gradient is not None and not gradient[M:].any()


def make_batch(directions: int = 1) -> Batch:
    """Return a batch of which objectives read only labels and directions."""
    blank = torch.zeros(8, dtype=torch.int64)
    return Batch(
        input_ids=blank,
        token_types=blank,
        positions=blank,
        sample_ids=blank.int() + 1,
        cu_seqlens=torch.tensor([0, 8]),
        masked_positions=torch.arange(M).repeat(directions),
        mlm_labels=torch.tensor(LABELS).repeat(directions),
        cls_positions=torch.arange(3),
        nsp_labels=torch.tensor([0, 1, IGNORE_INDEX]),
        row_tokens=8,
        counts={},
        directions=directions,
    )


def make_outputs(logits_MV: torch.Tensor, nsp_logits_S2: torch.Tensor | None) -> Outputs:
    """Return outputs with the given logits: their decoder is the identity."""
    return Outputs(
        hidden_ND=torch.zeros(8, V),
        masked_MD=logits_MV,
        nsp_logits_S2=nsp_logits_S2,
        decoder_VD=torch.eye(V),
        decoder_bias_V=torch.zeros(V),
        kernels=choose_kernels("reference", "reference", torch.device("cpu")),
    )


def test_terms_of_pretraining_are_words_and_sentences() -> None:
    logits = torch.tensor(draw(M, V), dtype=torch.float32)
    nsp = torch.tensor([[1.0, 0.0], [3.0, 0.0], [9.0, 0.0]])
    terms = pretraining_terms(make_outputs(logits, nsp), make_batch())
    expected_nsp = np.log1p(np.exp(-1)) + np.log1p(np.exp(3))
    assert [(t.tag, t.per, t.weight) for t in terms] == [
        ("loss/mlm", "masked", 1.0),
        ("accuracy/mlm", "masked", 0.0),
        ("loss/nsp", "samples", 1.0),
        ("accuracy/nsp", "samples", 0.0),
    ]
    hits = float((draw(M, V).argmax(axis=-1) == LABELS).sum())
    expected = [numpy_cross_entropy(draw(M, V)), hits, expected_nsp, 1.0]
    assert [t.total.item() for t in terms] == pytest.approx(expected, rel=1e-5)
    without = pretraining_terms(make_outputs(logits, None), make_batch())
    assert [t.tag for t in without] == ["loss/mlm", "accuracy/mlm"]


def test_each_direction_has_its_own_terms_with_logits_in_memory_or_not() -> None:
    logits = torch.tensor(draw(2 * M, V), dtype=torch.float32)
    outputs, batch = make_outputs(logits, None), make_batch(directions=2)
    terms = pretraining_terms(outputs, batch)
    assert [t.tag for t in terms[::2]] == ["loss/mlm", "loss/mlm_reversed"]
    halves = [numpy_cross_entropy(half) for half in (draw(2 * M, V)[:M], draw(2 * M, V)[M:])]
    assert [t.total.item() for t in terms[::2]] == pytest.approx(halves, rel=1e-5)
    in_memory = [x for losses in word_losses_of(outputs.mlm_logits_MV, batch) for x in losses]
    torch.testing.assert_close(in_memory, [term.total for term in terms])


def test_terms_are_divided_by_their_own_counts() -> None:
    terms = [
        Term("loss/a", torch.tensor(6.0), "masked", 5.0),
        Term("accuracy/a", torch.tensor(2.0), "masked"),
        Term("loss/b", torch.tensor(8.0), "tokens", 0.5),
        Term("loss/c", torch.tensor(9.0), "samples", 1.0),
    ]
    counts = {"masked": 3, "tokens": 16, "samples": 0}
    assert normalised_loss(terms, counts).item() == pytest.approx(5 * 2 + 0.5 * 0.5 + 9)
    values = normalised_values(terms, counts)
    assert values.tolist() == pytest.approx([2, 2 / 3, 0.5, 9]) and values.dtype == torch.float64
