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
from pretrain.model.dropout_rng import dropout_keys
from tests.pretrain.kernels.fp64_reference import KEY, keys_of, reference_mask

ELEMENTS = 2**18
DEVIATIONS = 5.0
# Small numbers like those of layers, steps and rows, and large ones like those of a hash.
KEYS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (-1, 0), (0, -1), (20_260_101, 7), (20_260_102, 7)]
RATES = [0.1, 0.5]


def standardised(rate: float, *keys: tuple[int, int]) -> np.ndarray:
    """Return the masks of some rows as numbers of mean 0 and variance 1, [rows, elements]."""
    return standardised_mask(keep_mask(ELEMENTS, rate, keys_of(*keys)), rate)


def standardised_mask(mask: torch.Tensor, rate: float) -> np.ndarray:
    return (mask.cpu().numpy() - (1 - rate)) / np.sqrt(rate * (1 - rate))


def deviations(left: np.ndarray, right: np.ndarray) -> float:
    """Return the correlation of two rows of numbers in standard deviations."""
    return abs(float(np.mean(left * right))) * np.sqrt(left.size)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("key", KEYS)
def test_mask_matches_documented_hash(key: tuple[int, int], rate: float) -> None:
    """The mask equals the documented hash, computed independently."""
    (mask,) = keep_mask(10_007, rate, keys_of(key))
    assert np.array_equal(mask.cpu().numpy(), reference_mask(10_007, rate, key))


def test_mask_of_key_never_changes() -> None:
    """The mask of a key is pinned, so that runs resume under newer releases."""
    # A run that resumes under a newer release must go on with the same masks.
    (mask,) = keep_mask(40, 0.5, torch.tensor([[1, 2]], dtype=torch.int32))
    bits = "".join("01"[stays] for stays in mask.tolist())
    assert bits == "1001100111010000001110100100110101101110"


def test_mask_is_prefix_of_longer_mask() -> None:
    """The mask of a short row is a prefix of that of a longer one."""
    assert torch.equal(keep_mask(1000, 0.3, keys_of())[:, :100], keep_mask(100, 0.3, keys_of()))


def test_mask_of_row_follows_its_key() -> None:
    """A row has the same mask wherever it lies in a batch."""
    masks = keep_mask(1000, 0.3, keys_of(*KEYS))
    for key, mask in zip(KEYS, masks, strict=True):
        assert torch.equal(mask, keep_mask(1000, 0.3, keys_of(key))[0])


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
        (mask,) = standardised(rate, key)
        assert deviations(mask[distance:], mask[:-distance]) < DEVIATIONS, (key, distance)


@pytest.mark.parametrize("rate", RATES)
def test_masks_of_keys_are_uncorrelated(rate: float) -> None:
    """Masks of different keys are uncorrelated."""
    masks = dict(zip(KEYS, standardised(rate, *KEYS), strict=True))
    for left, right in itertools.combinations(KEYS, 2):
        assert deviations(masks[left], masks[right]) < DEVIATIONS, (left, right)


@pytest.mark.parametrize("rate", RATES)
def test_masks_are_not_permutations(rate: float) -> None:
    """No mask is the permutation of another by XOR of indices."""
    # They would be, if a key were combined with counters by XOR alone.
    masks = dict(zip(KEYS, standardised(rate, *KEYS), strict=True))
    for (left, right), bit in itertools.product(itertools.combinations(KEYS, 2), (1, 2, 4, 1024)):
        exchanged = masks[right][np.arange(ELEMENTS) ^ bit]
        assert deviations(masks[left], exchanged) < DEVIATIONS, (left, right, bit)


def assert_binomial(counts: np.ndarray, elements: int) -> None:
    """Check the variance of sums over some elements; of n draws it deviates by √(2 / n)."""
    variance = counts.var() / elements
    assert abs(variance - 1) < DEVIATIONS * np.sqrt(2 / len(counts))


def test_dropped_per_token_is_binomial() -> None:
    """The number of dropped elements per token has the binomial variance."""
    (mask,) = standardised(0.1, KEYS[-1])
    assert_binomial(mask.reshape(1024, -1).sum(axis=1), ELEMENTS // 1024)


@pytest.fixture(scope="module")
def masks_of_run() -> np.ndarray:
    """Return masks as of a run, with the last rows of one global batch after the first ones of
    another: [steps, sites, rows, elements].
    """
    rows = np.array([[0, 1, 2, 3, 4, 5, 2**33, 2**33 + 1]])
    keys = [dropout_keys(3, step, rows, 2, torch.device("cpu"))[0] for step in (0, 1, 1000)]
    masks = keep_mask(2**14, 0.1, torch.stack(keys).reshape(-1, 2))
    return standardised_mask(masks, 0.1).reshape(3, 5, 8, -1)


def test_masks_of_run_are_independent(masks_of_run: np.ndarray) -> None:
    """Masks of any two rows, layers or steps are uncorrelated, and each drops at the rate."""
    masks = masks_of_run.reshape(-1, masks_of_run.shape[-1])
    assert np.abs(masks.mean(axis=1)).max() * np.sqrt(masks.shape[1]) < DEVIATIONS
    correlations = np.abs(masks @ masks.T) / np.sqrt(masks.shape[1])
    np.fill_diagonal(correlations, 0.0)
    assert correlations.max() < DEVIATIONS


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["steps", "sites", "rows"])
def test_dropped_across_run_is_binomial(masks_of_run: np.ndarray, axis: int) -> None:
    """How often an element is dropped, over rows, layers or steps, has the binomial variance."""
    # Pairs may be uncorrelated and a sum still vary too little or too much, as that of a design.
    sums = masks_of_run.sum(axis=axis)
    assert_binomial(sums.reshape(-1), masks_of_run.shape[axis])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kept_elements_are_scaled(dtype: torch.dtype) -> None:
    """Kept elements are divided by 1 - rate in their own type."""
    x = torch.linspace(1, 2, 60).view(5, 12).to(dtype)
    dropped = keyed_dropout(x, 0.25, keys_of().cpu())
    stays = torch.from_numpy(reference_mask(60, 0.25)).view(5, 12)
    assert dropped.dtype == dtype
    assert torch.equal(dropped, torch.where(stays, x / 0.75, torch.zeros_like(x)))


def test_dropped_nan_becomes_zero() -> None:
    """Dropped elements are 0 even if they were NaN."""
    x = torch.full((1000,), torch.nan, requires_grad=True)
    dropped = keyed_dropout(x, 0.5, keys_of().cpu())
    assert np.array_equal(dropped.isnan().numpy(), reference_mask(1000, 0.5))


def test_dropout_gradient_uses_same_mask() -> None:
    """The gradient passes through the same mask."""
    x = torch.linspace(-1, 1, 50, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(partial(keyed_dropout, rate=0.3, keys_B2=keys_of().cpu()), [x])


def test_no_key_or_rate_is_identity() -> None:
    """Without a key or with rate 0 nothing is dropped."""
    x = torch.randn(10)
    assert keyed_dropout(x, 0.5, None) is x
    assert keyed_dropout(x, 0.0, keys_of().cpu()) is x
    assert keep_mask(0, 0.5, keys_of()).shape == (1, 0)


def test_threshold_is_signed_32_bit() -> None:
    """Thresholds are signed 32-bit numbers."""
    assert [threshold(rate) for rate in (0.0, 0.25, 0.5)] == [-(2**31), -(2**30), 0]
    assert threshold(1 - 2**-40) == 2**31 - 1


def test_compiled_mask_matches_eager() -> None:
    """A compiled mask equals the eager one."""
    # Masks alone are compared: other rounding is up to the compiler.
    compiled = torch.compile(partial(keep_mask, 1000, 0.3), fullgraph=True)
    for first in (0, 20_260_101):
        keys = keys_of((first, KEY[1]), KEY)
        assert torch.equal(compiled(keys), keep_mask(1000, 0.3, keys))


def test_compiled_code_fits_32_bits() -> None:
    """Compiled code holds no constant beyond 32 bits."""
    # Triton refuses larger constants, and layers with dropout would not compile for a GPU.
    compiled = torch.compile(partial(keyed_dropout, rate=0.1), fullgraph=True, dynamic=False)
    x_ND = torch.ones(64, 768)
    dropped_ND, sources = run_and_get_code(compiled, x_ND, keys_B2=keys_of(*KEYS[:4]))
    numbers = [int(digits) for digits in re.findall(r"\b\d+(?=L?\b)", "".join(sources))]
    assert any(numbers), "the search found the code"
    assert max(numbers) < 2**32
    assert torch.equal(dropped_ND, keyed_dropout(x_ND, 0.1, keys_of(*KEYS[:4])))
