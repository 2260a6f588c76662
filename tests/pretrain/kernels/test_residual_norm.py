"""Bias, dropout, residual and LayerNorm, reference and Triton kernel, each against fp64."""

from collections.abc import Callable, Sequence
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
both = pytest.mark.parametrize("function", [reference, fused], ids=["reference", "triton"])
ResidualNorm = Callable[..., torch.Tensor]


def fp64_formula(
    inner_ND: torch.Tensor,
    bias_D: torch.Tensor,
    residual_ND: torch.Tensor,
    weight_D: torch.Tensor,
    norm_bias_D: torch.Tensor,
    rate: float = RATE,
    keys: Sequence[Key] = (),
) -> torch.Tensor:
    return layer_norm(drop(inner_ND + bias_D, rate, *keys) + residual_ND, weight_D, norm_bias_D)


def drawn(
    tokens: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[list[torch.Tensor], torch.Tensor]:
    numbers = Numbers(tokens + width, dtype)
    rows, columns = (tokens, width), (width,)
    shapes = [rows, columns, rows, columns, columns]
    return [numbers.draw(*shape) for shape in shapes], numbers.draw(*rows)


def computed(
    function: ResidualNorm,
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
    # A row's gradients are divided by its deviation, here at least √EPSILON = 0.1, and contain
    # sums over the row: ten times the bound of numbers that are not.
    assert_rounded(actual.value, exact.value, 10 * width, roundings)
    for gradient, exact_gradient in zip(actual.gradients, exact.gradients, strict=True):
        assert_rounded(gradient, exact_gradient, 10 * (width + tokens), roundings)


@both
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_residual_norm_matches_fp64(function: ResidualNorm, tokens: int, width: int) -> None:
    """Values and gradients of both implementations equal those in fp64, up to rounding."""
    inputs, grad = drawn(tokens, width)
    exact = evaluate_fp64(fp64_formula, inputs, grad)
    compare(computed(function, inputs, grad), exact, tokens, width)


@both
@pytest.mark.parametrize("row_tokens", [1, 5, 20])
def test_residual_norm_keys_of_rows(function: ResidualNorm, row_tokens: int) -> None:
    """Each row has its own mask; rows end inside tiles and stripes."""
    keys = [(number, 3 * number) for number in range(60 // row_tokens)]
    inputs, grad = drawn(60, 37)
    exact = evaluate_fp64(partial(fp64_formula, keys=keys), inputs, grad)
    compare(computed(function, inputs, grad, keys=keys), exact, 60, 37)


@both
def test_residual_norm_without_dropout(function: ResidualNorm) -> None:
    """Without a key or with rate 0 nothing is dropped."""
    inputs, grad = drawn(5, 37)
    exact = evaluate_fp64(partial(fp64_formula, rate=0.0), inputs, grad)
    compare(computed(function, inputs, grad, rate=0.0), exact, 5, 37)
    without_key = partial(function, epsilon=EPSILON, rate=RATE, keys_B2=None)
    compare(evaluate(without_key, inputs, grad), exact, 5, 37)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_residual_norm_kernel_rounds_once(dtype: torch.dtype) -> None:
    """In 16 bits the kernel rounds values and gradients once."""
    inputs, grad = drawn(40, 37, dtype)
    actual = computed(fused, inputs, grad)
    assert {x.dtype for x in (actual.value, *actual.gradients)} == {dtype}
    compare(actual, evaluate_fp64(fp64_formula, inputs, grad), 40, 37, ONE_ROUNDING)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_residual_norm_reference_keeps_16_bits(dtype: torch.dtype) -> None:
    """The reference returns the 16-bit type of its inputs."""
    inputs, grad = drawn(5, 37, dtype)
    actual = computed(reference, inputs, grad)
    assert {x.dtype for x in (actual.value, *actual.gradients)} == {dtype}
    # Four roundings before the LayerNorm and one after it, each of numbers up to about 10.
    exact = evaluate_fp64(fp64_formula, inputs, grad)
    assert_rounded(actual.value, exact.value, roundings=50)


@both
def test_residual_norm_gradient_mask_matches_hash(function: ResidualNorm) -> None:
    """Gradients pass through the elements that the documented hash keeps."""
    inputs, grad = drawn(64, 37)
    grad_inner_ND = computed(function, inputs, grad).gradients[0]
    assert np.array_equal(
        grad_inner_ND.cpu().numpy() != 0, reference_mask(64 * 37, RATE).reshape(64, 37)
    )


def test_residual_norm_of_wide_rows() -> None:
    """A row wider than the usual tile is normalised as a whole."""
    inputs, grad = drawn(3, 2100)
    exact = evaluate_fp64(fp64_formula, inputs, grad)
    compare(computed(fused, inputs, grad), exact, 3, 2100)


def test_residual_norm_large_mean() -> None:
    """A large mean causes no cancellation in the variance."""
    inputs, grad = drawn(5, 128)
    inputs[2] += 4096.0  # exact in fp32, as sixteenths are
    exact = evaluate_fp64(fp64_formula, inputs, grad)
    # Inputs around 2^12 have errors 2^12 times those of numbers around 1.
    assert_rounded(computed(fused, inputs, grad).value, exact.value, roundings=2**13)


def test_residual_norm_backward_is_deterministic() -> None:
    """The backward pass gives the same bits in every run."""
    inputs, grad = drawn(80, 37)
    first, again = computed(fused, inputs, grad), computed(fused, inputs, grad)
    assert all(map(torch.equal, first.gradients, again.gradients))


@both
def test_residual_norm_under_checkpointing(function: ResidualNorm) -> None:
    """Activation checkpointing gives the same values and gradients."""
    inputs, grad = drawn(5, 37)
    again = partial(checkpoint, partial(function, epsilon=EPSILON, rate=RATE, keys_B2=keys_of()))
    plain = computed(function, inputs, grad)
    checkpointed = evaluate(partial(again, use_reentrant=False), inputs, grad)
    assert torch.equal(plain.value, checkpointed.value)
    assert all(map(torch.equal, plain.gradients, checkpointed.gradients))


def test_residual_norm_saved_memory() -> None:
    """Beside its inputs, the kernel saves two numbers per row."""
    inputs, _ = drawn(64, 128)
    leaves = [x.requires_grad_() for x in inputs]
    saved_elements = []

    def count(x: torch.Tensor) -> torch.Tensor:
        if not any(x.data_ptr() == leaf.data_ptr() for leaf in leaves):
            saved_elements.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        fused(*leaves, epsilon=EPSILON, rate=RATE, keys_B2=keys_of())
    assert sum(saved_elements) == 2 * 64


def test_residual_norm_accepts_strided_inputs() -> None:
    """Inputs need not be contiguous."""
    inputs, grad = drawn(8, 12)
    turned = [x.t().contiguous().t() if x.dim() == 2 else x for x in inputs]
    straight, crooked = computed(fused, inputs, grad), computed(fused, turned, grad)
    assert torch.equal(straight.value, crooked.value)
    assert all(map(torch.equal, straight.gradients, crooked.gradients))
