"""Counter-based random numbers: uniform, and independent of batching and order."""

import numpy as np
import pytest

from data_prep.counter_rng import Permutation, hash64, integers_below, key_of, uniform

KEY = key_of("test", 7)
DRAWS = 40_000


def splitmix64(key: int, counter: int) -> int:
    """Compute one draw in Python's unbounded integers, from the paper's description."""
    mask = (1 << 64) - 1
    bits = (counter * 0x9E3779B97F4A7C15 + key) & mask
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & mask
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
    return bits ^ (bits >> 31)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16, 17, 100, 255, 256, 257, 1000, 4097, 20_001])
def test_permutation_is_bijective(size: int) -> None:
    """A permutation maps the positions onto themselves."""
    visited = Permutation(KEY, size)(np.arange(size))
    assert sorted(visited.tolist()) == list(range(size))


def test_permutation_depends_on_key() -> None:
    """A permutation shuffles, and another key shuffles differently."""
    first, second = (Permutation(key_of("rows", seed), 1000)(np.arange(1000)) for seed in (0, 1))
    # One position in a thousand stays by chance; a dozen would not.
    assert np.sum(first == np.arange(1000)) < 12
    assert np.sum(first == second) < 12


def test_permutation_image_is_uniform() -> None:
    """The image of a position is uniform over keys."""
    landed = [int(Permutation(key_of("rows", seed), 10)(3)) for seed in range(3000)]
    # Binomial, 300 expected in each bin with a deviation of 16.4: five deviations.
    assert all(abs(count - 300) < 83 for count in np.bincount(landed, minlength=10))


def test_permutation_is_elementwise() -> None:
    """One position and many have the same images."""
    permutation = Permutation(KEY, 777)
    together = permutation(np.arange(777).reshape(7, 111))
    assert together.shape == (7, 111)
    assert [int(permutation(position)) for position in range(777)] == together.ravel().tolist()


def test_draws_match_splitmix64() -> None:
    """Draws are SplitMix64."""
    counters = [0, 1, 2, 12345, 2**40, 2**64 - 1]
    expected = [splitmix64(int(KEY), counter) for counter in counters]
    assert hash64(KEY, np.array(counters, np.uint64)).tolist() == expected


def test_draws_ignore_order_and_batching() -> None:
    """Draws do not depend on order or batching."""
    together = hash64(KEY, np.arange(1000))
    backwards = hash64(KEY, np.arange(1000)[::-1])[::-1]
    piecewise = np.concatenate([hash64(KEY, np.arange(a, a + 50)) for a in range(0, 1000, 50)])
    assert np.array_equal(together, backwards) and np.array_equal(together, piecewise)


def test_draws_keep_counters() -> None:
    """Drawing does not change the counters."""
    counters = np.arange(5, dtype=np.uint64)
    hash64(KEY, counters)
    assert counters.tolist() == [0, 1, 2, 3, 4]


def test_keys_separate_purposes() -> None:
    """Keys differ by purpose and by the order of their parts."""
    keys = [key_of("mask", 1, 2), key_of("mask", 2, 1), key_of("mask", 12), key_of("order", 1, 2)]
    assert len(set(keys)) == 4
    assert key_of("mask", 1, 2) == keys[0]


@pytest.mark.parametrize("key", [np.uint64(0), KEY, np.uint64(2**64 - 1)])
def test_uniform_draws_are_uniform(key: np.uint64) -> None:
    """Uniform draws are uniform and uncorrelated."""
    draws = uniform(key, np.arange(DRAWS))
    assert draws.min() >= 0.0 and draws.max() < 1.0
    # 100 bins of 400 expected draws; chi-squared of 99 degrees has a deviation of 14.1.
    counts = np.bincount((draws * 100).astype(int), minlength=100)
    assert abs(((counts - 400) ** 2 / 400).sum() - 99) < 5 * 14.1
    # Neighbouring counters are unrelated: a correlation of 0, give or take 1/sqrt(n).
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5 / np.sqrt(DRAWS)


def test_each_bit_is_fair() -> None:
    """Each bit of a draw is fair."""
    bits = hash64(KEY, np.arange(DRAWS))
    ones = [int(((bits >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)]
    assert max(abs(count - DRAWS / 2) for count in ones) < 5 * np.sqrt(DRAWS) / 2


def test_integers_cover_their_range() -> None:
    """Integers stay below their limits and are uniform."""
    limits = np.tile([1, 2, 7], DRAWS // 3)
    drawn = integers_below(KEY, np.arange(len(limits)), limits)
    for limit in (1, 2, 7):
        mine = drawn[limits == limit]
        expected = len(mine) / limit
        counts = np.bincount(mine, minlength=limit)
        assert len(counts) == limit
        assert np.abs(counts - expected).max() <= 5 * np.sqrt(expected)


def test_integers_below_huge_limit() -> None:
    """Integers below a huge limit stay below it."""
    drawn = integers_below(KEY, np.arange(1000), 2**53 - 1)
    assert drawn.min() >= 0 and 2**52 < drawn.max() < 2**53 - 1


@pytest.mark.parametrize("outside", [-1, 10, 1 << 40])
def test_permutation_refuses_outside_position(
    outside: int,
) -> None:
    """A position outside the permutation is an error, not an endless loop."""
    with pytest.raises(IndexError, match="outside"):
        Permutation(key_of("any"), 10)(np.array([0, outside]))
