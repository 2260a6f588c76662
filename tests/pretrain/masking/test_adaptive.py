"""Adaptive masking: probabilities follow frequency and position, and their mean is the rate."""

import numpy as np
import pytest

from data_prep.counter_rng import key_of
from pretrain.masking.adaptive import POSITION_BINS, Adaptive
from tests.sample_layouts import SPECIALS, assert_share, draw_samples, lay_out, ordinary_tokens

KEY = key_of("mask", 0, 0)
V = 300
ROWS = lay_out(draw_samples(2500, V))
FREQUENCIES = np.bincount(ROWS.input_ids, minlength=V).astype(np.float64)
FREQUENCIES[:SPECIALS] = 0
POWERS = [(-0.5, 0.0), (0.5, 0.0), (-2.0, 0.0), (3.0, 0.0), (-0.5, 1.0), (0.0, -0.5), (1.0, 2.0)]


@pytest.mark.parametrize(("frequency_power", "position_power"), POWERS)
@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_mean_probability_is_rate(
    frequency_power: float, position_power: float, rate: float
) -> None:
    """The mean probability over the corpus is the rate, clipping included."""
    policy = Adaptive(FREQUENCIES, frequency_power, position_power)
    probabilities = policy.scale(rate) * policy.weights[:, None] * policy.position_weights
    mean = (FREQUENCIES @ np.minimum(probabilities, 1)).mean() / FREQUENCIES.sum()
    assert mean == pytest.approx(rate, rel=1e-9)
    if frequency_power > 1:
        assert probabilities[SPECIALS:].max() > 1, "this case is meant to clip"


@pytest.mark.parametrize(("frequency_power", "position_power"), POWERS)
def test_adaptive_masks_at_rate(frequency_power: float, position_power: float) -> None:
    """The share of masked tokens is the rate."""
    chosen = Adaptive(FREQUENCIES, frequency_power, position_power).choose(ROWS, KEY, 0.15)
    ordinary = ordinary_tokens(ROWS)
    # Sixteenths of a short sample are not equally full, which shifts the mean a little.
    slack = 0.004 * len(ordinary) if position_power else 0
    count = np.isin(chosen, ordinary).sum()
    assert abs(count - 0.15 * len(ordinary)) < 5 * np.sqrt(len(ordinary) * 0.15 * 0.85) + slack


@pytest.mark.parametrize("power", [-0.5, 0.5])
def test_probability_follows_frequency_power(power: float) -> None:
    """Probabilities are proportional to the power of the frequency."""
    policy = Adaptive(FREQUENCIES, power, 0.0)
    chosen = np.bincount(ROWS.input_ids[policy.choose(ROWS, KEY, 0.15)], minlength=V)
    expected = np.minimum(policy.scale(0.15) * policy.weights, 1)
    common = int(FREQUENCIES.argmax())
    rare = int(np.where(FREQUENCIES > 0, FREQUENCIES, np.inf).argmin())
    assert FREQUENCIES[common] > 5 * FREQUENCIES[rare]
    for token in (common, SPECIALS + 50, SPECIALS + 150, rare):
        assert_share(chosen[token], FREQUENCIES[token], expected[token])
    ratio = (FREQUENCIES[common] / FREQUENCIES[rare]) ** power
    assert expected[common] / expected[rare] == pytest.approx(ratio)


@pytest.mark.parametrize("power", [-1.0, 1.0])
def test_probability_follows_position_power(power: float) -> None:
    """Probabilities are proportional to the power of the position."""
    rows = lay_out([(number, [50] * 160, []) for number in range(3000)])
    counts = np.zeros(V)
    counts[50] = 1
    chosen = Adaptive(counts, 0.0, power).choose(rows, KEY, 0.1)
    positions = rows.positions[chosen[rows.input_ids[chosen] == 50]] - 1
    weights = ((np.arange(POSITION_BINS) + 0.5) / POSITION_BINS) ** power
    for part, weight in enumerate(weights):
        found = ((positions >= 10 * part) & (positions < 10 * part + 10)).sum()
        assert_share(found, 10 * len(rows.sample_starts), 0.1 * weight / weights.mean())


def test_position_relative_to_sample() -> None:
    """The position is relative to the length of the sample."""
    short, long = (lay_out([(n, [50] * size, []) for n in range(4000)]) for size in (16, 64))
    policy = Adaptive(np.eye(V)[50], 0.0, 2.0)
    shares = []
    for rows, size in ((short, 16), (long, 64)):
        chosen = policy.choose(rows, KEY, 0.2)
        last_half = rows.positions[chosen] > size // 2
        shares.append(last_half[rows.input_ids[chosen] == 50].mean())
    assert shares[0] == pytest.approx(shares[1], abs=0.02) and shares[0] > 0.8


def test_unseen_token_counts_as_rarest() -> None:
    """A token without occurrences has the weight of the rarest one."""
    counts = np.array([0, 0, 100.0, 4.0, 0.0])
    assert Adaptive(counts, -0.5, 0.0).weights[4] == Adaptive(counts, -0.5, 0.0).weights[3]
    assert np.isfinite(Adaptive(np.zeros(5), -0.5, 0.0).scale(0.15))
