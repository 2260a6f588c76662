"""Two heads, soft and hard losses: reference and Triton kernel, each against autograd in fp64."""

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pretrain.data.batch import IGNORE_INDEX
from pretrain.kernels.soft_cross_entropy import Head
from pretrain.kernels.soft_cross_entropy import soft_cross_entropy as reference
from pretrain.kernels.triton.soft_cross_entropy import soft_cross_entropy as fused
from tests.pretrain.kernels.soft_cross_entropy_reference import (
    DEVICE,
    DIVERGENCES,
    Case,
    Exact,
    draw,
    exact,
    relative_errors,
)

# Tokens, widths of student and teacher, vocabulary: the smallest; odd ones; three chunks of the
# smallest budget; and a vocabulary larger than the block of the kernel.
SIZES = [(1, 1, 1, 1), (5, 7, 9, 3), (140, 33, 20, 201), (3, 16, 5, 9001)]


def assert_equals_exact(
    case: Case,
    function: Any,
    divergence: str = "forward",
    temperature: float = 2.0,
    weights: tuple[float, float] = (5.0, 2.0),
    upstream: float = 1.0,
    **options: Any,
) -> None:
    """Compare an fp32 case with fp64.

    A rounding is 6e-8, and a few hundred numbers are added; for hidden states as many as the
    vocabulary has, in the order of the library. Their roundings add up like a random walk.
    """
    soft, hard = weights
    sums = function(
        *case,
        temperature=temperature,
        divergence=divergence,
        soft_weight=soft,
        hard_weight=hard,
        **options,
    )
    (sums.total * upstream).backward()
    expected = exact(case, temperature, divergence, soft, hard)
    assert {x.dtype for x in sums} == {torch.float32}
    assert [x.requires_grad for x in sums] == [True, False, False, False]
    for actual, value in zip(sums, expected[:4], strict=True):
        assert actual.item() == pytest.approx(value, rel=2e-6, abs=2e-5)
    hidden, weight, bias = (error.found for error in relative_errors(case, expected, upstream))
    vocabulary = len(case.student.bias_V)
    assert max(weight, bias) < 1e-6 and hidden < max(1e-6, vocabulary**0.5 * 2.0**-24)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("size", SIZES)
def test_soft_ce_reference_matches_fp64(size: tuple[int, int, int, int], divergence: str) -> None:
    """Losses and gradients of the reference equal those in fp64, up to rounding."""
    assert_equals_exact(draw(*size), reference, divergence)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("size", SIZES)
def test_soft_ce_kernel_matches_fp64(size: tuple[int, int, int, int], divergence: str) -> None:
    """Losses and gradients of the kernel equal those in fp64, up to rounding."""
    assert_equals_exact(draw(*size), fused, divergence, budget_bytes=1)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_soft_ce_kernel_temperature(temperature: float, divergence: str) -> None:
    """The kernel equals fp64 at every temperature."""
    assert_equals_exact(draw(5, 7, 4, 40), fused, divergence, temperature)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1e-4, 3e-4), (300.0, 20.0)])
def test_soft_ce_kernel_weights(weights: tuple[float, float]) -> None:
    """The total and its gradients follow the weights."""
    assert_equals_exact(draw(5, 7, 4, 40), fused, weights=weights)


@pytest.mark.parametrize("upstream", [1e-6, 3e4])
def test_soft_ce_scales_with_upstream(upstream: float) -> None:
    """Gradients scale with the upstream gradient."""
    assert_equals_exact(draw(5, 7, 4, 40), fused, upstream=upstream)


BOTH = pytest.mark.parametrize("function", [reference, fused])


# Errors beside the final rounding: the reference sums in fp32, and on a GPU rounds the gradient of
# the logits before its products; the kernel has a factor in fp16, which the interpreter truncates.
INNER = {reference: 1e-6 if DEVICE.type == "cpu" else 2.0**-9, fused: 2.0**-11}


def assert_rounded_once(function: Any, case: Case, expected: Exact) -> None:
    """Compare gradients with correctly rounded ones in fp64.

    A bf16 number is off by at most 2^-8; for numbers spread evenly over a power of two that is
    0.39 2^-8 = 1.5e-3 by norm, which is the least error of a gradient in bf16. Independent errors
    add up by their squares.
    """
    for error in relative_errors(case, expected):
        assert error.found <= math.hypot(error.rounded, INNER[function])


@BOTH
@pytest.mark.parametrize("decoder", ["as the states", torch.float32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_soft_ce_16_bit_error_is_rounding(
    dtype: torch.dtype, decoder: Any, divergence: str, function: Any
) -> None:
    """16-bit gradients err by their rounding alone, which is absent with an fp32 decoder."""
    case = draw(70, 24, 16, 300, dtype, dtype if decoder == "as the states" else decoder)
    weights = {"soft_weight": 5.0, "hard_weight": 2.0}
    options = {"budget_bytes": 1} if function is fused else {}
    sums = function(*case, temperature=2.0, divergence=divergence, **weights, **options)
    sums.total.backward()
    assert_rounded_once(function, case, exact(case, 2.0, divergence, 5.0, 2.0))


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_soft_ce_nearly_equal_heads(divergence: str, dtype: torch.dtype, function: Any) -> None:
    """Gradients of nearly equal heads are accurate, which logits in bf16 would make impossible."""
    case = draw(9, 24, 24, 300, dtype)
    with torch.no_grad():
        for own, teacher in zip(case.student, case.teacher, strict=True):
            own.copy_(teacher)
        case.student.bias_V[::7] += 2.0**-6
    sums = function(*case, temperature=1.0, divergence=divergence, hard_weight=0.0)
    sums.total.backward()
    expected = exact(case, 1.0, divergence, 1.0, 0.0)
    assert 0 < expected.soft < 1e-3
    assert sums.soft.item() == pytest.approx(expected.soft, rel=1e-4)
    # Probabilities are rounded to fp32: 2^-24 over differences of some 2^-6.
    for error in relative_errors(case, expected):
        assert error.found <= math.hypot(error.rounded, 1e-3)


@BOTH
@pytest.mark.parametrize("gap", [2.0**-6, 2.0**-10, 2.0**-14])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_soft_ce_keeps_digits_near_agreement(divergence: str, gap: float, function: Any) -> None:
    """A divergence of nearly equal heads has digits left, where a difference of sums has none."""
    case = draw(9, 24, 24, 300)
    with torch.no_grad():
        for own, teacher in zip(case.student, case.teacher, strict=True):
            own.copy_(teacher)
        case.student.bias_V[::7] += gap
    sums = function(*case, temperature=2.0, divergence=divergence, hard_weight=0.0)
    expected = exact(case, 2.0, divergence, 1.0, 0.0)
    assert 0.01 * gap**2 < expected.soft < gap**2
    # Logits below 16 are rounded to 2^-21, which is that share of their gap; each token has 43.
    assert sums.soft.item() == pytest.approx(expected.soft, rel=2.0**-21 / gap + 1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@BOTH
def test_soft_ce_of_equal_heads_is_zero(function: Any, divergence: str) -> None:
    """Equal heads have a divergence and a gradient of 0."""
    case = draw(70, 8, 8, 70)
    teacher = Head(*(x.detach().clone() for x in case.student))
    sums = function(
        case.student, teacher, case.labels_M, temperature=3.0, divergence=divergence, hard_weight=0
    )
    sums.total.backward()
    assert sums.total.item() == sums.soft.item() == 0.0
    assert sums.hard.item() > 0
    assert not any(x.grad.any() for x in case.student)


@BOTH
def test_soft_ce_without_labels_is_zero(function: Any) -> None:
    """Without labels or tokens, sums and gradients are 0."""
    empty, ignored = draw(0, 7, 5, 40), draw(4, 7, 5, 40)
    ignored.labels_M.fill_(IGNORE_INDEX)
    for case in (empty, ignored):
        sums = function(*case, temperature=2.0)
        sums.total.backward()
        assert [x.item() for x in sums] == [0.0] * 4
        assert not any(x.grad is None or x.grad.any() for x in case.student)


def test_soft_ce_ignores_unlabelled_tokens() -> None:
    """Tokens without a label change no sum, even if they overflow."""
    case = draw(6, 7, 5, 40)
    plain = fused(*case, temperature=2.0)
    with torch.no_grad():
        case.student.hidden_MD[2] = torch.inf
        case.teacher.hidden_MD[5] = torch.nan
        assert fused(*case, temperature=2.0) == plain


def test_soft_ce_independent_of_budget() -> None:
    """The memory budget changes results by rounding alone."""
    one, many = draw(140, 9, 6, 65), draw(140, 9, 6, 65)
    for case, budget in ((one, 2**20), (many, 1)):
        fused(*case, temperature=2.0, budget_bytes=budget).total.backward()
    for x, y in zip(one.student, many.student, strict=True):
        # Sums of 140 numbers up to 2 T + 3 in another order.
        torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=140 * 7 * 2.0**-23)
    assert torch.equal(one.student.hidden_MD.grad, many.student.hidden_MD.grad)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_soft_ce_huge_logits_are_finite(dtype: torch.dtype, divergence: str) -> None:
    """Logits of 10,000 give finite losses and gradients."""
    case = draw(6, 1, 1, 40, dtype)
    with torch.no_grad():
        for head, sign in ((case.student, 1), (case.teacher, -1)):
            head.hidden_MD.fill_(100.0)
            head.weight_VD.copy_(sign * torch.linspace(-100, 100, 40).round().view(40, 1))
            head.bias_V.zero_()
    sums = fused(*case, temperature=1.0, divergence=divergence)
    sums.total.backward()
    # Each of the four labelled tokens is 20,000 nats from its teacher.
    assert sums.soft.item() == pytest.approx(4 * 20_000, rel=1e-6)
    assert all(x.grad.isfinite().all() for x in case.student)


@pytest.mark.parametrize("label", [-1, 201, 223, 10**6])
def test_soft_ce_invalid_label_is_not_finite(label: int) -> None:
    """A label outside of the vocabulary gives a total of NaN."""
    case = draw(3, 4, 4, 201)
    case.labels_M[0] = label
    assert not fused(*case, temperature=2.0).total.isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_soft_ce_propagates_teacher_nan(
    dtype: torch.dtype,
) -> None:
    """NaN in the teacher's logits appears in the total and the gradient."""
    case = draw(3, 4, 4, 20, dtype)
    with torch.no_grad():
        case.teacher.bias_V[4] = torch.nan
    total = fused(*case, temperature=2.0).total
    total.backward()
    assert total.isnan() and case.student.bias_V.grad.isnan().any()


class _Allocations(TorchDispatchMode):
    """Records the size of every new floating-point tensor that is not a view, in elements."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.known = {x.untyped_storage().data_ptr() for x in (*case.student, *case.teacher)}
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            # The interpreter allocates byte tensors of its own.
            if not isinstance(x, torch.Tensor) or not x.is_floating_point():
                continue
            if x.untyped_storage().data_ptr() not in self.known:
                self.known.add(x.untyped_storage().data_ptr())
                self.sizes.append(x.numel())
        return result


def test_soft_ce_memory_independent_of_tokens() -> None:
    """The logits take two buffers, whatever the number of tokens."""
    case = draw(300, 3, 2, 192)  # five chunks of 64 tokens, of an aligned vocabulary
    with torch.no_grad(), _Allocations(case) as evaluation:
        total = fused(*case, temperature=2.0, budget_bytes=1).total
    assert not total.requires_grad
    large = [size for size in evaluation.sizes if size > 3 * 300]
    assert large == [2 * 64 * 192]
    with _Allocations(case) as training:
        fused(*case, temperature=2.0, budget_bytes=1)
    assert [size for size in training.sizes if size > 3 * 300] == large


def test_soft_ce_inside_compiled_caller() -> None:
    """A compiled caller gets the same gradients."""
    plain, compiled = draw(5, 7, 6, 40), draw(5, 7, 6, 40)

    def doubled(student: Head, teacher: Head, labels_M: torch.Tensor) -> torch.Tensor:
        return fused(student, teacher, labels_M, temperature=2.0).total * 2

    doubled(*plain).backward()
    torch.compile(doubled, backend="eager")(*compiled).backward()
    for x, y in zip(plain.student, compiled.student, strict=True):
        assert torch.equal(x.grad, y.grad)
