"""Bias, dropout, residual and LayerNorm, reference and Triton kernel, each against fp64."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from pretrain.kernels.residual_norm import residual_norm as reference
from pretrain.kernels.triton.residual_norm import residual_norm as fused
from tests.pretrain.kernels.fp64_reference import (
    EPSILON,
    ONE_ROUNDING,
    TOKENS,
    WIDTHS,
    Answer,
    Numbers,
    a_key,
    answer,
    answer_in_double,
    assert_rounded,
    drop,
    kept,
    layer_norm,
)

RATE = 0.3
both = pytest.mark.parametrize("function", [reference, fused], ids=["reference", "triton"])
ResidualNorm = Callable[..., torch.Tensor]


def in_double(
    inner_ND: torch.Tensor,
    bias_D: torch.Tensor,
    residual_ND: torch.Tensor,
    weight_D: torch.Tensor,
    norm_bias_D: torch.Tensor,
    rate: float = RATE,
) -> torch.Tensor:
    return layer_norm(drop(inner_ND + bias_D, rate) + residual_ND, weight_D, norm_bias_D)


def drawn(
    tokens: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[list[torch.Tensor], torch.Tensor]:
    numbers = Numbers(tokens + width, dtype)
    rows, columns = (tokens, width), (width,)
    shapes = [rows, columns, rows, columns, columns]
    return [numbers.draw(*shape) for shape in shapes], numbers.draw(*rows)


def computed(
    function: ResidualNorm, inputs: list[torch.Tensor], grad: torch.Tensor, rate: float = RATE
) -> Answer:
    return answer(partial(function, epsilon=EPSILON, rate=rate, key=a_key()), inputs, grad)


def compare(actual: Answer, exact: Answer, tokens: int, width: int, roundings: int = 1) -> None:
    # A row's gradients are divided by its deviation, here at least √EPSILON = 0.1, and contain
    # sums over the row: ten times the bound of numbers that are not.
    assert_rounded(actual.value, exact.value, 10 * width, roundings)
    for gradient, exact_gradient in zip(actual.gradients, exact.gradients, strict=True):
        assert_rounded(gradient, exact_gradient, 10 * (width + tokens), roundings)


@both
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_values_and_gradients_are_those_of_fp64(
    function: ResidualNorm, tokens: int, width: int
) -> None:
    inputs, grad = drawn(tokens, width)
    exact = answer_in_double(in_double, inputs, grad)
    compare(computed(function, inputs, grad), exact, tokens, width)


@both
def test_without_a_rate_or_a_key_nothing_is_dropped(function: ResidualNorm) -> None:
    inputs, grad = drawn(5, 37)
    exact = answer_in_double(partial(in_double, rate=0.0), inputs, grad)
    compare(computed(function, inputs, grad, rate=0.0), exact, 5, 37)
    without_key = partial(function, epsilon=EPSILON, rate=RATE, key=None)
    compare(answer(without_key, inputs, grad), exact, 5, 37)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_rounds_half_precision_only_once(dtype: torch.dtype) -> None:
    inputs, grad = drawn(40, 37, dtype)
    actual = computed(fused, inputs, grad)
    assert {x.dtype for x in (actual.value, *actual.gradients)} == {dtype}
    compare(actual, answer_in_double(in_double, inputs, grad), 40, 37, ONE_ROUNDING)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_reference_keeps_half_precision(dtype: torch.dtype) -> None:
    inputs, grad = drawn(5, 37, dtype)
    actual = computed(reference, inputs, grad)
    assert {x.dtype for x in (actual.value, *actual.gradients)} == {dtype}
    # Four roundings before the LayerNorm and one after it, each of numbers up to about 10.
    exact = answer_in_double(in_double, inputs, grad)
    assert_rounded(actual.value, exact.value, roundings=50)


@both
def test_gradients_pass_where_elements_are_kept(function: ResidualNorm) -> None:
    inputs, grad = drawn(64, 37)
    grad_inner_ND = computed(function, inputs, grad).gradients[0]
    assert np.array_equal(grad_inner_ND.cpu().numpy() != 0, kept(64 * 37, RATE).reshape(64, 37))


def test_a_row_that_fills_a_tile_alone_is_normalised_whole() -> None:
    inputs, grad = drawn(3, 2100)
    exact = answer_in_double(in_double, inputs, grad)
    compare(computed(fused, inputs, grad), exact, 3, 2100)


def test_a_mean_far_from_zero_does_not_cancel() -> None:
    inputs, grad = drawn(5, 128)
    inputs[2] += 4096.0  # exact in fp32, as sixteenths are
    exact = answer_in_double(in_double, inputs, grad)
    # Inputs of 2^12 keep 2^-12 of their digits: that many more units than numbers around 1.
    assert_rounded(computed(fused, inputs, grad).value, exact.value, roundings=2**13)


def test_the_backward_pass_gives_the_same_bits_again() -> None:
    inputs, grad = drawn(80, 37)
    first, again = computed(fused, inputs, grad), computed(fused, inputs, grad)
    assert all(map(torch.equal, first.gradients, again.gradients))


@both
def test_a_forward_pass_computed_again_drops_the_same(function: ResidualNorm) -> None:
    inputs, grad = drawn(5, 37)
    again = partial(checkpoint, partial(function, epsilon=EPSILON, rate=RATE, key=a_key()))
    kept_once = computed(function, inputs, grad)
    recomputed = answer(partial(again, use_reentrant=False), inputs, grad)
    assert torch.equal(kept_once.value, recomputed.value)
    assert all(map(torch.equal, kept_once.gradients, recomputed.gradients))


def test_only_inputs_and_two_numbers_a_row_are_kept() -> None:
    inputs, _ = drawn(64, 128)
    leaves = [x.requires_grad_() for x in inputs]
    kept_elements = []

    def count(x: torch.Tensor) -> torch.Tensor:
        if not any(x.data_ptr() == leaf.data_ptr() for leaf in leaves):
            kept_elements.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        fused(*leaves, epsilon=EPSILON, rate=RATE, key=a_key())
    assert sum(kept_elements) == 2 * 64


def test_inputs_need_not_be_contiguous() -> None:
    inputs, grad = drawn(8, 12)
    turned = [x.t().contiguous().t() if x.dim() == 2 else x for x in inputs]
    straight, crooked = computed(fused, inputs, grad), computed(fused, turned, grad)
    assert torch.equal(straight.value, crooked.value)
    assert all(map(torch.equal, straight.gradients, crooked.gradients))
