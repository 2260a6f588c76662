"""Bias and GELU, reference and Triton kernel, each against fp64."""

import math
from collections.abc import Callable

import pytest
import torch

from pretrain.kernels.bias_gelu import bias_gelu as reference
from pretrain.kernels.triton.bias_gelu import bias_gelu as fused
from tests.pretrain.kernels.fp64_reference import (
    ONE_ROUNDING,
    TOKENS,
    WIDTHS,
    Numbers,
    assert_rounded,
    evaluate,
    evaluate_fp64,
)

both = pytest.mark.parametrize("function", [reference, fused], ids=["reference", "triton"])
BiasGelu = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def fp64_formula(x_NF: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
    z_NF = x_NF + bias_F
    return z_NF * torch.erfc(-z_NF / math.sqrt(2)) / 2


def drawn(
    tokens: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[list[torch.Tensor], torch.Tensor]:
    numbers = Numbers(tokens + width, dtype)
    return [numbers.draw(tokens, width), numbers.draw(width)], numbers.draw(tokens, width)


@both
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_bias_gelu_matches_fp64(function: BiasGelu, tokens: int, width: int) -> None:
    """Values and gradients of both implementations equal those in fp64, up to rounding."""
    inputs, grad = drawn(tokens, width)
    actual, exact = evaluate(function, inputs, grad), evaluate_fp64(fp64_formula, inputs, grad)
    assert_rounded(actual.value, exact.value)
    assert_rounded(actual.gradients[0], exact.gradients[0])
    assert_rounded(actual.gradients[1], exact.gradients[1], terms=tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bias_gelu_kernel_rounds_once(dtype: torch.dtype) -> None:
    """In 16 bits the kernel rounds values and gradients once."""
    inputs, grad = drawn(40, 37, dtype)
    actual, exact = evaluate(fused, inputs, grad), evaluate_fp64(fp64_formula, inputs, grad)
    assert actual.value.dtype == dtype
    assert_rounded(actual.value, exact.value, roundings=ONE_ROUNDING)
    for gradient, exact_gradient in zip(actual.gradients, exact.gradients, strict=True):
        assert gradient.dtype == dtype
        assert_rounded(gradient, exact_gradient, 40, ONE_ROUNDING)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bias_gelu_reference_keeps_16_bits(dtype: torch.dtype) -> None:
    """The reference returns the 16-bit type of its inputs."""
    inputs, grad = drawn(5, 37, dtype)
    actual, exact = evaluate(reference, inputs, grad), evaluate_fp64(fp64_formula, inputs, grad)
    assert actual.value.dtype == dtype
    assert_rounded(actual.value, exact.value, roundings=3)  # the sum and the result


def test_bias_gelu_splits_wide_rows() -> None:
    """A row wider than a tile is split between programs."""
    inputs, grad = drawn(3, 2500)
    actual, exact = evaluate(fused, inputs, grad), evaluate_fp64(fp64_formula, inputs, grad)
    assert_rounded(actual.value, exact.value)
    assert_rounded(actual.gradients[0], exact.gradients[0])
    assert_rounded(actual.gradients[1], exact.gradients[1], terms=3)


def test_bias_gelu_of_large_numbers() -> None:
    """Large positive numbers pass unchanged, large negative ones give 0."""
    x_NF = torch.tensor([[-1e30, -200.0, 200.0, 1e30]])
    value, (grad_NF, _) = evaluate(fused, [x_NF, torch.zeros(4)], torch.ones(1, 4))
    assert value.tolist() == [[0.0, 0.0, 200.0, x_NF[0, 3].item()]]
    assert grad_NF.tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_bias_gelu_backward_is_deterministic() -> None:
    """The backward pass gives the same bits in every run."""
    inputs, grad = drawn(80, 37)
    first, again = evaluate(fused, inputs, grad), evaluate(fused, inputs, grad)
    assert all(map(torch.equal, first.gradients, again.gradients))


def test_bias_gelu_accepts_strided_inputs() -> None:
    """Inputs and gradients need not be contiguous."""
    inputs, grad = drawn(8, 12)
    turned = [inputs[0].t().contiguous().t(), inputs[1]]
    straight, crooked = evaluate(fused, inputs, grad), evaluate(fused, turned, grad.expand_as(grad))
    assert torch.equal(straight.value, crooked.value)
    assert torch.equal(straight.gradients[0], crooked.gradients[0])
