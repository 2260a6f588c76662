"""Attention losses, each against a plain computation in fp64."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_prep.errors import UserError
from tests.pretrain.losses.attention_reference import (
    DEVICE,
    LONG,
    OBJECTIVES,
    SHORT,
    UNIT,
    Case,
    draw,
    ids_of,
    make_case,
)

EACH = pytest.mark.parametrize("name", OBJECTIVES)


def assert_exact(case: Case, **options: int) -> None:
    """Compare an fp32 case with fp64, as far as sums of some thousand products allow."""
    value, gradients = case.exact()
    found = case.ours(**options)
    assert found.dtype == torch.float32 and found.shape == ()
    assert found.item() == pytest.approx(value, rel=1e-6)
    for got, wanted in zip(case.gradients(**options), gradients, strict=True):
        assert wanted.norm() > 0.1
        assert (got - wanted).norm() <= 1e-6 * wanted.norm()


@EACH
@pytest.mark.parametrize("packing", [SHORT, LONG])
def test_attention_losses_match_fp64(name: str, packing: tuple[int, list[list[int]]]) -> None:
    """Values and gradients are those of fp64, in packed rows."""
    assert_exact(make_case(name, packing))


@EACH
@pytest.mark.parametrize("heads, widths", [(1, (1, 1)), (4, (8, 8)), (5, (15, 5)), (6, (6, 30))])
def test_any_heads_that_divide_widths(name: str, heads: int, widths: tuple[int, int]) -> None:
    """Every number of heads that divides both widths works."""
    assert_exact(make_case(name, heads=heads, widths=widths))


@EACH
@pytest.mark.parametrize("budget_bytes", [1, 60_000])
def test_budget_changes_rounding_only(name: str, budget_bytes: int) -> None:
    """The memory budget changes nothing but rounding."""
    assert_exact(make_case(name, LONG), budget_bytes=budget_bytes)


@EACH
@pytest.mark.parametrize("dtype", UNIT)
def test_16_bit_error_is_gradient_rounding(name: str, dtype: torch.dtype) -> None:
    """Inputs in 16 bits err by the rounding of their gradients alone."""
    case = make_case(name, dtype=dtype)
    value, gradients = case.exact()
    assert case.ours().item() == pytest.approx(value, rel=1e-6)
    # On a GPU, TF32 rounds the gradient of a score to 11 bits before a sum.
    inner = 1e-6 if DEVICE.type == "cpu" else 2.0**-10
    for got, wanted in zip(case.gradients(upstream=8.0), gradients, strict=True):
        assert got.dtype == dtype
        bound = UNIT[dtype] * wanted.abs() + inner * wanted.abs().max()
        assert ((got.double() / 8 - wanted).abs() <= bound).all()


@EACH
def test_attention_losses_zero_at_equality(name: str) -> None:
    """Equal models have a loss and gradient of exactly 0."""
    case = make_case(name, LONG, widths=(6, 6))
    case = case._replace(teacher=[x.detach().clone() for x in case.student])
    assert case.ours().item() == 0.0
    assert not any(gradient.any() for gradient in case.gradients())


@EACH
@pytest.mark.parametrize("deviation", [0.1, 1e-2, 1e-4])
def test_near_equality_keeps_digits(name: str, deviation: float) -> None:
    """No digits are lost where the models nearly agree."""
    case = make_case(name, LONG, widths=(6, 6))
    offsets = [draw(*x.shape, seed=20 + i) for i, x in enumerate(case.student)]
    with torch.no_grad():
        for x, theirs, offset in zip(case.student, case.teacher, offsets, strict=True):
            x.copy_(theirs + deviation * offset)
    value, gradients = case.exact()
    # A score of size 1 errs by some 2^-23, the gap between two that differ by `deviation` so much
    # more in relation to itself, and its square twice that.
    allowed = 1e-6 + 8 * 2.0**-23 / deviation
    assert case.ours().item() == pytest.approx(value, rel=allowed)
    for got, wanted in zip(case.gradients(), gradients, strict=True):
        assert (got - wanted).norm() <= allowed * wanted.norm()


@EACH
def test_samples_of_a_row_independent(name: str) -> None:
    """Gradients of a sample do not depend on its neighbours in the row."""
    case = make_case(name, (40, [[11, 9, 15]]))
    before = case.gradients()
    with torch.no_grad():
        for x in (*case.student, *case.teacher):
            x[11:20] = 7.0
    for got, wanted in zip(case.gradients(), before, strict=True):
        assert torch.equal(got[:11], wanted[:11]) and torch.equal(got[20:], wanted[20:])
        assert not torch.equal(got[11:20], wanted[11:20])


@EACH
@pytest.mark.parametrize("packing", [SHORT, LONG])
def test_packed_loss_is_sum_of_samples(name: str, packing: tuple[int, list[list[int]]]) -> None:
    """The loss of packed rows is the sum of the losses of their samples."""
    case = make_case(name, packing)
    alone = 0.0
    for row, lengths in enumerate(packing[1]):
        start = row * packing[0]
        for length in lengths:
            models = [
                [x.detach()[start : start + length] for x in model]
                for model in (case.student, case.teacher)
            ]
            ids = torch.ones(length, dtype=torch.int32, device=DEVICE)
            single = Case(case.objective, *models, case.heads, ids, length)
            alone += single.ours().item()
            start += length
    assert case.ours().item() == pytest.approx(alone, rel=1e-6)


@EACH
@pytest.mark.parametrize("filling", [0.0, 1e4, torch.nan])
def test_padding_amount_and_content_ignored(name: str, filling: float) -> None:
    """Neither the amount of padding nor its content has an effect."""
    row_tokens, rows = LONG
    case = make_case(name, LONG)
    wider = row_tokens + 77

    def padded(x: torch.Tensor) -> torch.Tensor:
        at = torch.where(case.ids_N[:, None] > 0, x.detach(), filling).view(
            len(rows), row_tokens, -1
        )
        more = torch.full((len(rows), 77, x.shape[1]), filling, device=DEVICE)
        return torch.cat([at, more], 1).flatten(0, 1)

    roomy = Case(
        case.objective,
        [padded(x).requires_grad_() for x in case.student],
        [padded(x) for x in case.teacher],
        case.heads,
        ids_of(wider, rows),
        wider,
    )
    assert roomy.ours().item() == pytest.approx(case.ours().item(), rel=1e-6)
    for got, wanted in zip(roomy.gradients(), case.gradients(), strict=True):
        got, wanted = got.view(len(rows), wider, -1), wanted.view(len(rows), row_tokens, -1)
        assert not got[:, row_tokens:].any()
        # Sums in another order.
        assert (got[:, :row_tokens] - wanted).norm() <= 1e-6 * wanted.norm()
        assert not wanted[case.ids_N.view(len(rows), row_tokens) == 0].any()


@EACH
@pytest.mark.parametrize("rows", [[[], []], []])
def test_batch_without_tokens_zero(name: str, rows: list[list[int]]) -> None:
    """A batch without tokens has a loss and gradient of 0."""
    case = make_case(name, (9, rows))
    assert case.ours().item() == 0.0
    assert not any(gradient.any() for gradient in case.gradients())


@EACH
def test_teacher_gets_no_gradient(name: str) -> None:
    """The teacher's tensors may come from inference mode and get no gradient."""
    case = make_case(name)
    wanted = case.gradients()
    with torch.inference_mode():
        teacher = [x.clone() for x in case.teacher]
    for got, expected in zip(case._replace(teacher=teacher).gradients(), wanted, strict=True):
        assert torch.equal(got, expected)
    for x in case.teacher:
        x.requires_grad_()
    case.ours().backward()
    assert all(x.grad is None for x in case.teacher)


@EACH
def test_views_of_wider_tensors(name: str) -> None:
    """Projections of all three kinds often lie side by side."""
    case = make_case(name)
    wide = [torch.cat([x, x], 1).detach().requires_grad_() for x in case.student]
    halves = [x[:, x.shape[1] // 2 :] for x in wide]
    found = torch.autograd.grad(case._replace(student=halves).ours(), wide)
    for got, wanted in zip(found, case.gradients(), strict=True):
        assert torch.equal(got[:, wanted.shape[1] :], wanted)


@EACH
@pytest.mark.parametrize("widths, model, width", [((6, 8), "student", 6), ((8, 6), "teacher", 6)])
def test_heads_not_dividing_width_refused(
    name: str, widths: tuple[int, int], model: str, width: int
) -> None:
    """Heads that do not divide a width are refused, and the message names the model."""
    with pytest.raises(UserError, match=rf"{model}'s width {width} .* 4 heads"):
        make_case(name, heads=4, widths=widths).ours()


class Allocations(TorchDispatchMode):
    """Records the elements of the largest tensor that is created, views included."""

    largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.numel())
        return result


def largest_tensor(name: str, row_tokens: int, **options: int) -> int:
    case = make_case(name, (row_tokens, [[row_tokens]]), heads=2, widths=(4, 4)).on_cpu()
    with Allocations() as seen:
        case.ours(**options).backward()
    return seen.largest


@EACH
@pytest.mark.parametrize("options", [{}, {"budget_bytes": 1}])
def test_memory_linear_in_row_length(name: str, options: dict[str, int]) -> None:
    """The largest tensor is linear in the length of a row."""
    shorter, longer = (largest_tensor(name, length, **options) for length in (512, 1024))
    assert shorter <= 512 * 512 // 2  # no attention of a head
    assert longer == 2 * shorter


@EACH
def test_no_device_to_host_synchronisation(name: str) -> None:
    """Losses run on tensors without content, so no value or shape needs the host."""
    case = make_case(name, LONG).on_cpu()
    with FakeTensorMode() as mode:
        fake = case._replace(
            student=[mode.from_tensor(x) for x in case.student],
            teacher=[mode.from_tensor(x) for x in case.teacher],
            ids_N=mode.from_tensor(case.ids_N),
        )
        assert [x.shape for x in fake.gradients()] == [x.shape for x in case.student]
