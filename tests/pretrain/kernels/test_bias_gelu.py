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
    answer,
    answer_in_double,
    assert_rounded,
)

both = pytest.mark.parametrize("function", [reference, fused], ids=["reference", "triton"])
BiasGelu = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def in_double(x_NF: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
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
def test_values_and_gradients_are_those_of_fp64(
    function: BiasGelu, tokens: int, width: int
) -> None:
    inputs, grad = drawn(tokens, width)
    actual, exact = answer(function, inputs, grad), answer_in_double(in_double, inputs, grad)
    assert_rounded(actual.value, exact.value)
    assert_rounded(actual.gradients[0], exact.gradients[0])
    assert_rounded(actual.gradients[1], exact.gradients[1], terms=tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_rounds_half_precision_only_once(dtype: torch.dtype) -> None:
    inputs, grad = drawn(40, 37, dtype)
    actual, exact = answer(fused, inputs, grad), answer_in_double(in_double, inputs, grad)
    assert actual.value.dtype == dtype
    assert_rounded(actual.value, exact.value, roundings=ONE_ROUNDING)
    for gradient, exact_gradient in zip(actual.gradients, exact.gradients, strict=True):
        assert gradient.dtype == dtype
        assert_rounded(gradient, exact_gradient, 40, ONE_ROUNDING)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_reference_keeps_half_precision(dtype: torch.dtype) -> None:
    inputs, grad = drawn(5, 37, dtype)
    actual, exact = answer(reference, inputs, grad), answer_in_double(in_double, inputs, grad)
    assert actual.value.dtype == dtype
    assert_rounded(actual.value, exact.value, roundings=3)  # the sum and the result


def test_a_row_wider_than_a_tile_is_cut() -> None:
    inputs, grad = drawn(3, 2500)
    actual, exact = answer(fused, inputs, grad), answer_in_double(in_double, inputs, grad)
    assert_rounded(actual.value, exact.value)
    assert_rounded(actual.gradients[0], exact.gradients[0])
    assert_rounded(actual.gradients[1], exact.gradients[1], terms=3)


def test_large_numbers_pass_or_vanish() -> None:
    x_NF = torch.tensor([[-1e30, -200.0, 200.0, 1e30]])
    value, (grad_NF, _) = answer(fused, [x_NF, torch.zeros(4)], torch.ones(1, 4))
    assert value.tolist() == [[0.0, 0.0, 200.0, x_NF[0, 3].item()]]
    assert grad_NF.tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_the_backward_pass_gives_the_same_bits_again() -> None:
    inputs, grad = drawn(80, 37)
    first, again = answer(fused, inputs, grad), answer(fused, inputs, grad)
    assert all(map(torch.equal, first.gradients, again.gradients))


def test_inputs_need_not_be_contiguous() -> None:
    inputs, grad = drawn(8, 12)
    turned = [inputs[0].t().contiguous().t(), inputs[1]]
    straight, crooked = answer(fused, inputs, grad), answer(fused, turned, grad.expand_as(grad))
    assert torch.equal(straight.value, crooked.value)
    assert torch.equal(straight.gradients[0], crooked.gradients[0])
