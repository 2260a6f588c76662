"""Soft-target terms against numpy in fp64: values by formula, gradients by differences."""

import numpy as np
import pytest
import torch

from pretrain.data.batch import IGNORE_INDEX
from pretrain.distil.logit_losses import SoftLoss, soft_terms
from tests.pretrain.losses import numpy_reference
from tests.pretrain.losses.numpy_reference import assert_matches, draw
from tests.pretrain.losses.outputs_of_logits import make_batch, make_outputs

M, V = 5, 7
TEACHERS = pytest.mark.parametrize("teachers", [1, 2])


def soft_sum(
    student_MV: torch.Tensor,
    teacher_MV: torch.Tensor,
    temperature: float,
    labels_M: torch.Tensor | None = None,
    teachers: int = 1,
) -> torch.Tensor:
    """Return the soft-target sum of given logits, of one teacher or of equal ones."""
    labels_M = torch.zeros(len(student_MV), dtype=torch.int64) if labels_M is None else labels_M
    loss = SoftLoss(temperature, "forward", 1.0)
    teacher_outputs = [make_outputs(teacher_MV)] * teachers
    (term,) = soft_terms(loss, make_outputs(student_MV), teacher_outputs, make_batch(labels_M))
    assert term.tag == "loss/soft_targets" and term.per == "masked"
    return term.total


@TEACHERS
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_soft_targets_match_numpy(temperature: float, teachers: int) -> None:
    """The term is T² times the divergence, and its gradient agrees with central differences."""
    teacher = draw(M, V, seed=1)
    fixed = torch.tensor(teacher, dtype=torch.float32)
    assert_matches(
        lambda x: soft_sum(x, fixed, temperature, teachers=teachers),
        lambda x: numpy_reference.divergence(x, teacher, temperature),
        draw(M, V),
    )


@TEACHERS
def test_soft_targets_equal_models_zero(teachers: int) -> None:
    """Equal probabilities give a loss and gradient of 0; a constant changes no probability."""
    logits = torch.tensor(draw(M, V), dtype=torch.float32, requires_grad=True)
    loss = soft_sum(logits, logits.detach() + 3.0, 2.0, teachers=teachers)
    loss.backward()
    assert abs(loss.item()) < 1e-5
    assert logits.grad is not None and logits.grad.abs().max() < 1e-5


def test_soft_gradient_independent_of_high_temperature() -> None:
    """At high temperature the gradient is the difference of centred logits over V.

    Hinton et al. (arXiv 1503.02531), section 2.1.
    """
    student, teacher = (torch.tensor(draw(M, V, seed=s), dtype=torch.float32) for s in (0, 1))
    student.requires_grad_()
    soft_sum(student, teacher, 500.0).backward()
    centred = [logits - logits.mean(dim=-1, keepdim=True) for logits in (student, teacher)]
    expected = (centred[0] - centred[1]).detach() / V
    torch.testing.assert_close(student.grad, expected, rtol=0.05, atol=0.01)


@TEACHERS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_soft_targets_low_precision_summed_in_fp32(dtype: torch.dtype, teachers: int) -> None:
    """Logits in 16 bits give an fp32 sum without further rounding."""
    low, other = (torch.tensor(draw(M, V, seed=s)).to(dtype) for s in (0, 1))
    loss = soft_sum(low, other, 2.0, teachers=teachers)
    assert loss.dtype == torch.float32
    wide = [logits.double().numpy() for logits in (low, other)]
    expected = numpy_reference.divergence(wide[0], wide[1], 2.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@TEACHERS
def test_soft_targets_extreme_logits_finite(teachers: int) -> None:
    """Logits of 3e4 give a finite loss and gradient."""
    logits = torch.tensor([[3e4, -3e4, 0.0]], requires_grad=True)
    loss = soft_sum(logits, -logits.detach(), 1.0, teachers=teachers)
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@TEACHERS
def test_soft_targets_without_tokens_zero(teachers: int) -> None:
    """No masked token gives a loss of 0 with a gradient."""
    logits = torch.zeros(0, V, requires_grad=True)
    loss = soft_sum(logits, torch.zeros(0, V), 2.0, teachers=teachers)
    loss.backward()
    assert loss.item() == 0


@TEACHERS
def test_soft_targets_ignore_padding(teachers: int) -> None:
    """Entries with the label IGNORE_INDEX have neither loss nor gradient."""
    student, teacher = (torch.tensor(draw(M + 3, V, seed=s), dtype=torch.float32) for s in (0, 1))
    student.requires_grad_()
    labels = torch.tensor([*np.zeros(M, np.int64), *[IGNORE_INDEX] * 3])
    padded = soft_sum(student, teacher, 2.0, labels, teachers)
    exact = soft_sum(student[:M], teacher[:M], 2.0, teachers=teachers)
    torch.testing.assert_close(padded, exact)
    (gradient,), (wanted,) = (torch.autograd.grad(x, student) for x in (padded, exact))
    torch.testing.assert_close(gradient, wanted)
    assert not gradient[M:].any()
