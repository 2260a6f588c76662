"""Keyed dropout: masks follow the documented hash and are statistically independent.

Every count or correlation of n independent draws is, divided by its standard deviation, a draw from
the normal distribution. The tests allow 5 deviations, which by chance less than one in a million
exceeds. Keys are fixed, so a test gives the same numbers in every run.
"""

import itertools
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch._inductor.utils import run_and_get_code

from pretrain.kernels.dropout import keep_mask, keyed_dropout, threshold
from tests.pretrain.kernels.fp64_reference import a_key, reference_mask

ELEMENTS = 2**18
DEVIATIONS = 5.0
# Small numbers like those of layers, steps and ranks, and large ones like those of a hash.
KEYS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (-1, 0), (0, -1), (20_260_101, 7), (20_260_102, 7)]
RATES = [0.1, 0.5]


def standardised(rate: float, key: tuple[int, int]) -> np.ndarray:
    """Return a mask as numbers of mean 0 and variance 1."""
    mask = keep_mask(ELEMENTS, rate, a_key(*key)).cpu().numpy()
    return (mask - (1 - rate)) / np.sqrt(rate * (1 - rate))


def deviations(left: np.ndarray, right: np.ndarray) -> float:
    """Return the correlation of two rows of numbers in standard deviations."""
    return abs(float(np.mean(left * right))) * np.sqrt(left.size)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("key", KEYS)
def test_mask_matches_documented_hash(key: tuple[int, int], rate: float) -> None:
    """The mask equals the documented hash, computed independently."""
    mask = keep_mask(10_007, rate, a_key(*key))
    assert np.array_equal(mask.cpu().numpy(), reference_mask(10_007, rate, key))


def test_mask_of_key_never_changes() -> None:
    """The mask of a key is pinned, so that runs resume under newer releases."""
    # A run that resumes under a newer release must go on with the same masks.
    mask = keep_mask(40, 0.5, torch.tensor([1, 2], dtype=torch.int32))
    bits = "".join("01"[stays] for stays in mask.tolist())
    assert bits == "1001100111010000001110100100110101101110"


def test_mask_is_prefix_of_longer_mask() -> None:
    """The mask of a small tensor is a prefix of that of a larger one."""
    assert torch.equal(keep_mask(1000, 0.3, a_key())[:100], keep_mask(100, 0.3, a_key()))


@pytest.mark.parametrize("rate", [0.01, *RATES, 0.9])
def test_dropped_fraction_is_rate(rate: float) -> None:
    """The fraction of dropped elements is the rate."""
    for key in KEYS:
        mean = standardised(rate, key).mean()
        assert abs(mean) * np.sqrt(ELEMENTS) < DEVIATIONS, key


@pytest.mark.parametrize("rate", RATES)
def test_mask_has_no_autocorrelation(rate: float) -> None:
    """Elements at short distances and row widths are uncorrelated."""
    # Distances in a row, and between the rows of usual widths.
    for key, distance in itertools.product(KEYS, (1, 2, 3, 4, 8, 32, 128, 256, 768, 1024, 3072)):
        mask = standardised(rate, key)
        assert deviations(mask[distance:], mask[:-distance]) < DEVIATIONS, (key, distance)


@pytest.mark.parametrize("rate", RATES)
def test_masks_of_keys_are_uncorrelated(rate: float) -> None:
    """Masks of different keys are uncorrelated."""
    masks = {key: standardised(rate, key) for key in KEYS}
    for left, right in itertools.combinations(KEYS, 2):
        assert deviations(masks[left], masks[right]) < DEVIATIONS, (left, right)


@pytest.mark.parametrize("rate", RATES)
def test_masks_are_not_permutations(rate: float) -> None:
    """No mask is the permutation of another by XOR of indices."""
    # They would be, if a key were combined with counters by XOR alone.
    masks = {key: standardised(rate, key) for key in KEYS}
    for (left, right), bit in itertools.product(itertools.combinations(KEYS, 2), (1, 2, 4, 1024)):
        exchanged = masks[right][np.arange(ELEMENTS) ^ bit]
        assert deviations(masks[left], exchanged) < DEVIATIONS, (left, right, bit)


def test_dropped_per_row_is_binomial() -> None:
    """The number of dropped elements per row has the binomial variance."""
    # The variance of binomial counts over 1,024 rows has a relative deviation of √(2 / 1,024).
    counts = standardised(0.1, KEYS[-1]).reshape(1024, -1).sum(axis=1)
    variance = counts.var() / (ELEMENTS / 1024)
    assert abs(variance - 1) < DEVIATIONS * np.sqrt(2 / 1024)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kept_elements_are_scaled(dtype: torch.dtype) -> None:
    """Kept elements are divided by 1 - rate in their own type."""
    x = torch.linspace(1, 2, 60).view(5, 12).to(dtype)
    dropped = keyed_dropout(x, 0.25, a_key().cpu())
    stays = torch.from_numpy(reference_mask(60, 0.25)).view(5, 12)
    assert dropped.dtype == dtype
    assert torch.equal(dropped, torch.where(stays, x / 0.75, torch.zeros_like(x)))


def test_dropped_nan_becomes_zero() -> None:
    """Dropped elements are 0 even if they were NaN."""
    x = torch.full((1000,), torch.nan, requires_grad=True)
    dropped = keyed_dropout(x, 0.5, a_key().cpu())
    assert np.array_equal(dropped.isnan().numpy(), reference_mask(1000, 0.5))


def test_dropout_gradient_uses_same_mask() -> None:
    """The gradient passes through the same mask."""
    x = torch.linspace(-1, 1, 50, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(partial(keyed_dropout, rate=0.3, key=a_key().cpu()), [x])


def test_no_key_or_rate_is_identity() -> None:
    """Without a key or with rate 0 nothing is dropped."""
    x = torch.randn(10)
    assert keyed_dropout(x, 0.5, None) is x
    assert keyed_dropout(x, 0.0, a_key().cpu()) is x
    assert keep_mask(0, 0.5, a_key()).shape == (0,)


def test_threshold_is_signed_32_bit() -> None:
    """Thresholds are signed 32-bit numbers."""
    assert [threshold(rate) for rate in (0.0, 0.25, 0.5)] == [-(2**31), -(2**30), 0]
    assert threshold(1 - 2**-40) == 2**31 - 1


def test_compiled_mask_matches_eager() -> None:
    """A compiled mask equals the eager one."""
    # Masks alone are compared: other rounding is up to the compiler.
    compiled = torch.compile(partial(keep_mask, 1000, 0.3), fullgraph=True)
    for first in (0, 20_260_101):
        assert torch.equal(compiled(a_key(first)), keep_mask(1000, 0.3, a_key(first)))


def test_compiled_code_fits_32_bits() -> None:
    """Compiled code holds no constant beyond 32 bits."""
    # Triton refuses larger constants, and layers with dropout would not compile for a GPU.
    compiled = torch.compile(partial(keyed_dropout, rate=0.1), fullgraph=True, dynamic=False)
    x_ND = torch.ones(64, 768)
    dropped_ND, sources = run_and_get_code(compiled, x_ND, key=a_key())
    numbers = [int(digits) for digits in re.findall(r"\b\d+(?=L?\b)", "".join(sources))]
    assert any(numbers), "the search found the code"
    assert max(numbers) < 2**32
    assert torch.equal(dropped_ND, keyed_dropout(x_ND, 0.1, a_key()))
