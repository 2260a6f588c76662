"""References in fp64 for the fused operations; they share no code with the implementations."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTHS = (1, 3, 37, 128, 200)
TOKENS = (0, 1, 5, 64)  # two stripes of a backward pass
EPSILON = 1e-2  # large, so that a row of one element, whose deviation is 0, has small gradients
KEY = (20_260_101, -7)
Key = Sequence[int]
# Largest relative error of a rounding to the nearest.
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
# Error of a kernel's 16-bit result in units: it rounds once, and Triton's interpreter truncates.
ONE_ROUNDING = 1 if DEVICE.type == "cuda" else 2


def keys_of(*keys: Key) -> torch.Tensor:
    """Return keys of rows, by default of a single one, int32 [B, 2]."""
    return torch.tensor(keys or [KEY], dtype=torch.int32, device=DEVICE)


def reference_mask(count: int, rate: float, *keys: Key) -> np.ndarray:
    """Return which of `count` elements are kept, in as many rows as there are keys, [count]."""
    rows = [_mask_of_row(count // len(keys or [KEY]), rate, key) for key in keys or [KEY]]
    return np.concatenate(rows)


def _mask_of_row(count: int, rate: float, key: Key) -> np.ndarray:
    """Return which elements are kept: the documented hash, in numpy's unsigned integers."""
    golden = np.uint32(0x9E3779B9)

    def mix(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0xD35A2D97)
        return x ^ (x >> np.uint32(15))

    first, second = np.array([key], dtype=np.int32).astype(np.uint32).T
    origin = mix(first + second * golden)
    factor = ((origin ^ second) * golden) | np.uint32(1)
    counters = np.arange(count, dtype=np.uint32) + np.uint32(2**31)
    hashed = mix((counters * golden) ^ origin) * factor
    return (hashed + np.uint32(2**31)).astype(np.float64) >= rate * 2.0**32


def drop(x: torch.Tensor, rate: float, *keys: Key) -> torch.Tensor:
    stays = torch.from_numpy(reference_mask(x.numel(), rate, *keys)).view(x.shape).to(x.device)
    return x * stays / (1 - rate)


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight + bias


class Numbers:
    """Draws numbers that every type represents exactly, so that inputs are not rounded."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def draw(self, *shape: int) -> torch.Tensor:
        sixteenths = torch.randint(-48, 49, shape, generator=self.generator)
        return (sixteenths / 16).to(DEVICE, self.dtype)

    def ids(self, count: int, below: int) -> torch.Tensor:
        return torch.randint(below, (count,), generator=self.generator).to(DEVICE)


class Evaluation(NamedTuple):
    """A result, and the gradients of all floating-point inputs in order."""

    value: torch.Tensor
    gradients: tuple[torch.Tensor, ...]


def evaluate(
    function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], grad: torch.Tensor
) -> Evaluation:
    """Evaluate a function and its gradients; `grad` is the gradient of its result."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    value = function(*leaves)
    floating = [x for x in leaves if x.requires_grad]
    return Evaluation(value.detach(), torch.autograd.grad(value, floating, grad.to(value.dtype)))


def evaluate_fp64(
    function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], grad: torch.Tensor
) -> Evaluation:
    inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    return evaluate(function, inputs, grad.double())


def assert_rounded(
    actual: torch.Tensor, exact: torch.Tensor, terms: int = 1, roundings: int = 1
) -> None:
    """Check that a tensor equals the exact one up to rounding.

    Args:
        actual: of any floating type.
        exact: in fp64.
        terms: number of fp32 additions per element. Each rounds by at most a unit of the largest
            partial sum, which is estimated as `terms` times the largest result.
        roundings: number of roundings to the type of `actual`, each by a unit of the result.
    """
    assert actual.shape == exact.shape
    largest = _largest(exact)
    error = _largest(actual.double() - exact)
    # 32 fp32 roundings for the arithmetic around the sums; results may be small by cancellation.
    inside = (32 + 4 * terms) * UNIT[torch.float32]
    assert error <= (inside + roundings * UNIT[actual.dtype]) * max(largest, 1.0)


def _largest(x: torch.Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0
