"""Embeddings, LayerNorm and dropout, reference and Triton kernel, each against fp64."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from pretrain.kernels.embedding_norm import embedding_norm as reference
from pretrain.kernels.triton.embedding_norm import embedding_norm as fused
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
WORDS, POSITIONS = 11, 7
both = pytest.mark.parametrize("function", [reference, fused], ids=["reference", "triton"])
EmbeddingNorm = Callable[..., torch.Tensor]


def in_double(
    input_ids_N: torch.Tensor,
    token_types_N: torch.Tensor,
    positions_N: torch.Tensor,
    word_VD: torch.Tensor,
    type_2D: torch.Tensor,
    position_PD: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    rate: float = RATE,
) -> torch.Tensor:
    summed_ND = word_VD[input_ids_N] + type_2D[token_types_N] + position_PD[positions_N]
    return drop(layer_norm(summed_ND, weight_D, bias_D), rate)


def drawn(
    tokens: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return inputs of samples of 5 tokens, whose positions start again, and a gradient."""
    numbers = Numbers(tokens + width, dtype)
    ids_N, types_N = numbers.ids(tokens, WORDS), numbers.ids(tokens, 2)
    positions_N = torch.arange(tokens, device=ids_N.device) % 5
    shapes = [(WORDS, width), (2, width), (POSITIONS, width), (width,), (width,)]
    inputs = [ids_N, types_N, positions_N, *(numbers.draw(*shape) for shape in shapes)]
    return inputs, numbers.draw(tokens, width)


def computed(
    function: EmbeddingNorm, inputs: list[torch.Tensor], grad: torch.Tensor, rate: float = RATE
) -> Answer:
    return answer(partial(function, epsilon=EPSILON, rate=rate, key=a_key()), inputs, grad)


def compare(actual: Answer, exact: Answer, tokens: int, width: int, roundings: int = 1) -> None:
    # Gradients are divided by a row's deviation, here at least √EPSILON = 0.1, and contain sums
    # over the row: ten times the bound of numbers that are not.
    assert_rounded(actual.value, exact.value, 10 * width, ONE_ROUNDING)
    for gradient, exact_gradient in zip(actual.gradients, exact.gradients, strict=True):
        assert_rounded(gradient, exact_gradient, 10 * (width + tokens), roundings)


@both
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_values_and_gradients_are_those_of_fp64(
    function: EmbeddingNorm, tokens: int, width: int
) -> None:
    inputs, grad = drawn(tokens, width)
    exact = answer_in_double(in_double, inputs, grad)
    compare(computed(function, inputs, grad), exact, tokens, width)


@both
def test_without_a_rate_or_a_key_nothing_is_dropped(function: EmbeddingNorm) -> None:
    inputs, grad = drawn(5, 37)
    exact = answer_in_double(partial(in_double, rate=0.0), inputs, grad)
    compare(computed(function, inputs, grad, rate=0.0), exact, 5, 37)
    without_key = partial(function, epsilon=EPSILON, rate=RATE, key=None)
    compare(answer(without_key, inputs, grad), exact, 5, 37)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_keeps_half_precision(dtype: torch.dtype) -> None:
    inputs, grad = drawn(10, 37, dtype)
    actual = computed(fused, inputs, grad)
    assert {x.dtype for x in (actual.value, *actual.gradients)} == {dtype}
    # Values are rounded once; a table's gradient adds rounded rows, on a CPU rounding each sum.
    compare(actual, answer_in_double(in_double, inputs, grad), 10, 37, roundings=2 * 10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_reference_keeps_half_precision(dtype: torch.dtype) -> None:
    inputs, grad = drawn(5, 37, dtype)
    actual = computed(reference, inputs, grad)
    assert {x.dtype for x in (actual.value, *actual.gradients)} == {dtype}
    exact = answer_in_double(in_double, inputs, grad)
    # Two roundings before the LayerNorm and two after it, each of numbers up to about 10.
    assert_rounded(actual.value, exact.value, roundings=40)


@both
def test_the_elements_kept_are_those_of_the_hash(function: EmbeddingNorm) -> None:
    inputs, grad = drawn(64, 37)
    inputs[-1] = inputs[-1] + 1000.0  # of the LayerNorm's bias: no kept element is 0
    value_ND = computed(function, inputs, grad).value
    assert np.array_equal(value_ND.cpu().numpy() != 0, kept(64 * 37, RATE).reshape(64, 37))


@both
def test_rows_that_no_token_asks_for_get_no_gradient(function: EmbeddingNorm) -> None:
    inputs, grad = drawn(64, 37)
    inputs[0] = inputs[0] % 3
    inputs[1] = torch.zeros_like(inputs[1])
    word_VD, type_2D, position_PD, *_ = computed(function, inputs, grad).gradients
    assert word_VD[:3].abs().sum(1).all() and not word_VD[3:].any()
    assert type_2D[0].any() and not type_2D[1].any()
    assert position_PD[:5].abs().sum(1).all() and not position_PD[5:].any()


def test_a_row_that_fills_a_tile_alone_is_normalised_whole() -> None:
    inputs, grad = drawn(3, 2100)
    exact = answer_in_double(in_double, inputs, grad)
    compare(computed(fused, inputs, grad), exact, 3, 2100)


def test_the_backward_pass_gives_the_same_bits_again() -> None:
    inputs, grad = drawn(80, 37)
    first, again = computed(fused, inputs, grad), computed(fused, inputs, grad)
    assert all(map(torch.equal, first.gradients, again.gradients))
