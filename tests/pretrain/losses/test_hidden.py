"""Losses on hidden states and feature maps, against plain fp64 over the real tokens."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm

from pretrain.losses.feature_maps import feature_map_sums
from pretrain.losses.hidden import cosine_sum, mse_sum
from tests.pretrain.losses import numpy_reference
from tests.pretrain.losses.attention_reference import DEVICE, UNIT, draw

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
N, D = 11, 7
IS_TOKEN = torch.tensor([1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1], dtype=torch.bool, device=DEVICE)


def plain_cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    lengths = (student * student).sum(1).sqrt() * (teacher * teacher).sum(1).sqrt()
    return (1 - (student * teacher).sum(1) / lengths).sum()


def plain_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return ((student - teacher) ** 2).sum() / D


def plain_maps(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    ours, theirs = (layer_norm(x, (D,), eps=1e-12) for x in (student, teacher))
    return plain_mse(ours, theirs)


def plain_means(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return ((student.sum(1) / D - teacher.sum(1) / D) ** 2).sum()


def plain_variances(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (student.var(1, correction=0) - teacher.var(1, correction=0)).abs().sum()


def part(name: str) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda *arguments: getattr(feature_map_sums(*arguments), name)


OBJECTIVES = {
    "cosine": (cosine_sum, plain_cosine),
    "mse": (mse_sum, plain_mse),
    "maps": (part("maps"), plain_maps),
    "means": (part("means"), plain_means),
    "variances": (part("variances"), plain_variances),
}
EACH = pytest.mark.parametrize("ours, plain", OBJECTIVES.values(), ids=OBJECTIVES)


def exact(plain: Loss, student: torch.Tensor, teacher: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return value and gradient in fp64, of the tokens alone; the gradient of padding is 0."""
    point = student.detach().double().requires_grad_()
    value = plain(point[IS_TOKEN], teacher.double()[IS_TOKEN])
    return value.item(), torch.autograd.grad(value, point)[0]


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, *UNIT])
def test_hidden_losses_match_fp64(ours: Loss, plain: Loss, dtype: torch.dtype) -> None:
    """Values and gradients are those of fp64."""
    student, teacher = draw(N, D, seed=0, dtype=dtype), draw(N, D, seed=1, dtype=dtype)
    student.requires_grad_()
    value, gradient = exact(plain, student, teacher)
    found = ours(student, teacher, IS_TOKEN)  # type: ignore[call-arg]
    assert found.dtype == torch.float32 and found.shape == ()
    assert found.item() == pytest.approx(value, rel=1e-6)
    got = torch.autograd.grad(found, student)[0]
    assert got.dtype == dtype
    # One rounding of what is returned.
    bound = 1e-6 * gradient.norm() + UNIT.get(dtype, 0.0) * gradient.abs()
    assert ((got - gradient).abs() <= bound).all() and gradient.norm() > 0.1


@EACH
def test_hidden_losses_zero_at_equality(ours: Loss, plain: Loss) -> None:
    """Equal states have a loss and gradient of 0."""
    student = draw(N, D, seed=0).requires_grad_()
    value = ours(student, student.detach().clone(), IS_TOKEN)  # type: ignore[call-arg]
    value.backward()
    assert value.item() == 0 and student.grad is not None and not student.grad.any()


@EACH
@pytest.mark.parametrize("filling", [1e4, torch.inf, torch.nan])
def test_padding_content_ignored(ours: Loss, plain: Loss, filling: float) -> None:
    """Padding has no effect, whatever its content."""
    student, teacher = (draw(N, D, seed=seed) for seed in (0, 1))
    wanted = ours(student, teacher, IS_TOKEN)  # type: ignore[call-arg]
    student[~IS_TOKEN] = teacher[~IS_TOKEN] = filling
    student.requires_grad_()
    found = ours(student, teacher, IS_TOKEN)  # type: ignore[call-arg]
    found.backward()
    assert found.item() == wanted.item()
    assert student.grad is not None and student.grad.isfinite().all()
    assert not student.grad[~IS_TOKEN].any() and student.grad[IS_TOKEN].any()


@EACH
def test_hidden_losses_without_tokens_zero(ours: Loss, plain: Loss) -> None:
    """A batch without tokens has a loss and gradient of 0."""
    for positions in (0, 3):
        student, nowhere = draw(positions, D, seed=0).requires_grad_(), torch.zeros(positions) > 0
        value = ours(student, draw(positions, D, seed=1), nowhere.to(DEVICE))  # type: ignore[call-arg]
        value.backward()
        assert value.item() == 0 and student.grad is not None and not student.grad.any()


@EACH
def test_teacher_from_inference_mode(ours: Loss, plain: Loss) -> None:
    """The teacher's states may come from inference mode."""
    student = draw(N, D, seed=0).requires_grad_()
    with torch.inference_mode():
        teacher = draw(N, D, seed=1)
    ours(student, teacher, IS_TOKEN).backward()  # type: ignore[call-arg]
    assert student.grad is not None and student.grad.any()


@pytest.mark.parametrize("deviation", [1e-2, 1e-4])
def test_cosine_near_one_keeps_digits(deviation: float) -> None:
    """A cosine near 1 loses no digits."""
    teacher = draw(N, D, seed=1)
    student = teacher + deviation * draw(N, D, seed=0)
    value, _ = exact(plain_cosine, student, teacher)
    # Unit vectors err by some 2^-24, their gap by that over the deviation.
    allowed = 4 * 2.0**-24 / deviation
    assert cosine_sum(student, teacher, IS_TOKEN).item() == pytest.approx(value, rel=allowed)


def test_normalised_map_ignores_scale_and_offset() -> None:
    """Normalised maps do not depend on scale or offset; means and variances do."""
    teacher = draw(N, D, seed=1)
    sums = feature_map_sums(3 * teacher + 2, teacher, IS_TOKEN)
    assert sums.maps.item() == pytest.approx(0, abs=1e-8)
    # 2 + twice the mean, and 9 - 1 times the variance.
    moved = (2 + 2 * teacher[IS_TOKEN].mean(1)).square().sum()
    assert sums.means.item() == pytest.approx(moved.item(), rel=1e-5)
    spread = 8 * teacher[IS_TOKEN].var(1, correction=0).sum()
    assert sums.variances.item() == pytest.approx(spread.item(), rel=1e-5)


def test_constant_maps_have_finite_gradients() -> None:
    """Feature maps without variance have finite gradients."""
    student = torch.full((N, D), 3.0, device=DEVICE, requires_grad=True)
    sum(feature_map_sums(student, draw(N, D, seed=1), IS_TOKEN)).backward()  # type: ignore[union-attr]
    assert student.grad is not None and student.grad.isfinite().all()


def test_cosine_ignores_norm_and_padding() -> None:
    """The cosine distance does not depend on norms or padding, and is 2 for opposite states."""
    teacher = numpy_reference.draw(8, 6, seed=1)
    is_token = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    fixed, mask = torch.tensor(teacher, dtype=torch.float32), torch.tensor(is_token)
    student = numpy_reference.draw(8, 6)
    numpy_reference.assert_matches(
        lambda x: cosine_sum(x, fixed, mask),
        lambda x: numpy_reference.cosine(x, teacher, is_token),
        student,
    )
    point = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    cosine_sum(point, fixed, mask).backward()
    assert point.grad is not None and not point.grad[~mask].any()
    assert cosine_sum(3 * fixed, fixed, mask).item() == pytest.approx(0, abs=1e-5)
    assert cosine_sum(-fixed, fixed, mask).item() == pytest.approx(2 * 4, rel=1e-5)


@pytest.mark.parametrize("size", [1e-30, 0.0])
def test_cosine_of_vanishing_states_finite(size: float) -> None:
    """States of norm 0 have finite gradients."""
    point = torch.full((2, 4), size, requires_grad=True)
    cosine_sum(point, torch.ones(2, 4), torch.ones(2, dtype=torch.bool)).backward()
    assert point.grad is not None and torch.isfinite(point.grad).all()
