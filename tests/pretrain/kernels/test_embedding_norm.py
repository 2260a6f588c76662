"""Embeddings, LayerNorm and dropout, reference and Triton kernel, each against fp64."""

from collections.abc import Callable, Sequence
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
    Evaluation,
    Key,
    Numbers,
    assert_rounded,
    drop,
    evaluate,
    evaluate_fp64,
    keys_of,
    layer_norm,
    reference_mask,
)

RATE = 0.3
VOCABULARY, POSITIONS = 11, 7
both = pytest.mark.parametrize("function", [reference, fused], ids=["reference", "triton"])
EmbeddingNorm = Callable[..., torch.Tensor]


def fp64_formula(
    input_ids_N: torch.Tensor,
    token_types_N: torch.Tensor,
    positions_N: torch.Tensor,
    word_VD: torch.Tensor,
    type_2D: torch.Tensor,
    position_PD: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    rate: float = RATE,
    keys: Sequence[Key] = (),
) -> torch.Tensor:
    summed_ND = word_VD[input_ids_N] + type_2D[token_types_N] + position_PD[positions_N]
    return drop(layer_norm(summed_ND, weight_D, bias_D), rate, *keys)


def drawn(
    tokens: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return inputs of samples of 5 tokens, whose positions start again, and a gradient."""
    numbers = Numbers(tokens + width, dtype)
    ids_N, types_N = numbers.ids(tokens, VOCABULARY), numbers.ids(tokens, 2)
    positions_N = torch.arange(tokens, device=ids_N.device) % 5
    shapes = [(VOCABULARY, width), (2, width), (POSITIONS, width), (width,), (width,)]
    inputs = [ids_N, types_N, positions_N, *(numbers.draw(*shape) for shape in shapes)]
    return inputs, numbers.draw(tokens, width)


def computed(
    function: EmbeddingNorm,
    inputs: list[torch.Tensor],
    grad: torch.Tensor,
    rate: float = RATE,
    keys: Sequence[Key] = (),
) -> Evaluation:
    options = {"epsilon": EPSILON, "rate": rate, "keys_B2": keys_of(*keys)}
    return evaluate(partial(function, **options), inputs, grad)


def compare(
    actual: Evaluation, exact: Evaluation, tokens: int, width: int, roundings: int = 1
) -> None:
    # Gradients are divided by a row's deviation, here at least √EPSILON = 0.1, and contain sums
    # over the row: ten times the bound of numbers that are not.
    assert_rounded(actual.value, exact.value, 10 * width, ONE_ROUNDING)
    for gradient, exact_gradient in zip(actual.gradients, exact.gradients, strict=True):
        assert_rounded(gradient, exact_gradient, 10 * (width + tokens), roundings)


@both
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_embedding_norm_matches_fp64(function: EmbeddingNorm, tokens: int, width: int) -> None:
    """Values and gradients of both implementations equal those in fp64, up to rounding."""
    inputs, grad = drawn(tokens, width)
    exact = evaluate_fp64(fp64_formula, inputs, grad)
    compare(computed(function, inputs, grad), exact, tokens, width)


@both
@pytest.mark.parametrize("row_tokens", [1, 5, 20])
def test_embedding_norm_keys_of_rows(function: EmbeddingNorm, row_tokens: int) -> None:
    """Each row has its own mask; rows end inside tiles and stripes."""
    keys = [(number, 3 * number) for number in range(60 // row_tokens)]
    inputs, grad = drawn(60, 37)
    exact = evaluate_fp64(partial(fp64_formula, keys=keys), inputs, grad)
    compare(computed(function, inputs, grad, keys=keys), exact, 60, 37)


@both
def test_embedding_norm_without_dropout(function: EmbeddingNorm) -> None:
    """Without a key or with rate 0 nothing is dropped."""
    inputs, grad = drawn(5, 37)
    exact = evaluate_fp64(partial(fp64_formula, rate=0.0), inputs, grad)
    compare(computed(function, inputs, grad, rate=0.0), exact, 5, 37)
    without_key = partial(function, epsilon=EPSILON, rate=RATE, keys_B2=None)
    compare(evaluate(without_key, inputs, grad), exact, 5, 37)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_embedding_norm_kernel_keeps_16_bits(dtype: torch.dtype) -> None:
    """The kernel returns 16-bit values and gradients, within their roundings."""
    inputs, grad = drawn(10, 37, dtype)
    actual = computed(fused, inputs, grad)
    assert {x.dtype for x in (actual.value, *actual.gradients)} == {dtype}
    # Values are rounded once; a table's gradient adds rounded rows, on a CPU rounding each sum.
    compare(actual, evaluate_fp64(fp64_formula, inputs, grad), 10, 37, roundings=2 * 10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_embedding_norm_reference_keeps_16_bits(dtype: torch.dtype) -> None:
    """The reference returns the 16-bit type of its inputs."""
    inputs, grad = drawn(5, 37, dtype)
    actual = computed(reference, inputs, grad)
    assert {x.dtype for x in (actual.value, *actual.gradients)} == {dtype}
    exact = evaluate_fp64(fp64_formula, inputs, grad)
    # Two roundings before the LayerNorm and two after it, each of numbers up to about 10.
    assert_rounded(actual.value, exact.value, roundings=40)


@both
def test_embedding_norm_mask_matches_hash(function: EmbeddingNorm) -> None:
    """The kept elements are those of the documented hash."""
    inputs, grad = drawn(64, 37)
    inputs[-1] = inputs[-1] + 1000.0  # of the LayerNorm's bias: no kept element is 0
    value_ND = computed(function, inputs, grad).value
    assert np.array_equal(
        value_ND.cpu().numpy() != 0, reference_mask(64 * 37, RATE).reshape(64, 37)
    )


@both
def test_unused_embeddings_have_zero_gradient(function: EmbeddingNorm) -> None:
    """Rows of the tables without a token have gradient 0."""
    inputs, grad = drawn(64, 37)
    inputs[0] = inputs[0] % 3
    inputs[1] = torch.zeros_like(inputs[1])
    word_VD, type_2D, position_PD, *_ = computed(function, inputs, grad).gradients
    assert word_VD[:3].abs().sum(1).all() and not word_VD[3:].any()
    assert type_2D[0].any() and not type_2D[1].any()
    assert position_PD[:5].abs().sum(1).all() and not position_PD[5:].any()


def test_embedding_norm_of_wide_rows() -> None:
    """A row wider than the usual tile is normalised as a whole."""
    inputs, grad = drawn(3, 2100)
    exact = evaluate_fp64(fp64_formula, inputs, grad)
    compare(computed(fused, inputs, grad), exact, 3, 2100)


def test_embedding_norm_backward_is_deterministic() -> None:
    """The backward pass gives the same bits in every run."""
    inputs, grad = drawn(80, 37)
    first, again = computed(fused, inputs, grad), computed(fused, inputs, grad)
    assert all(map(torch.equal, first.gradients, again.gradients))
