"""Adaptive masking: chances follow frequency and place, and their mean is the rate."""

import numpy as np
import pytest

from data_prep.counter_rng import key_of
from pretrain.masking.adaptive import PLACES, Adaptive
from tests.sample_layouts import SPECIALS, assert_share, draw_samples, inner_places, lay

KEY = key_of("mask", 0, 0)
V = 300
LAID = lay(draw_samples(2500, V))
FREQUENCIES = np.bincount(LAID.ids, minlength=V).astype(np.float64)
FREQUENCIES[:SPECIALS] = 0
POWERS = [(-0.5, 0.0), (0.5, 0.0), (-2.0, 0.0), (3.0, 0.0), (-0.5, 1.0), (0.0, -0.5), (1.0, 2.0)]


@pytest.mark.parametrize(("frequency_power", "position_power"), POWERS)
@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_the_mean_over_the_corpus_is_the_rate_though_chances_are_clipped(
    frequency_power: float, position_power: float, rate: float
) -> None:
    policy = Adaptive(FREQUENCIES, frequency_power, position_power)
    chances = policy.scale(rate) * policy.weights[:, None] * policy.place_weights
    mean = (FREQUENCIES @ np.minimum(chances, 1)).mean() / FREQUENCIES.sum()
    assert mean == pytest.approx(rate, rel=1e-9)
    if frequency_power > 1:
        assert chances[SPECIALS:].max() > 1, "this case is meant to clip"


@pytest.mark.parametrize(("frequency_power", "position_power"), POWERS)
def test_tokens_are_masked_at_the_rate(frequency_power: float, position_power: float) -> None:
    places = Adaptive(FREQUENCIES, frequency_power, position_power).choose(LAID, KEY, 0.15)
    ordinary = inner_places(LAID)
    # Sixteenths of a short sample are not equally full, which shifts the mean a little.
    slack = 0.004 * len(ordinary) if position_power else 0
    count = np.isin(places, ordinary).sum()
    assert abs(count - 0.15 * len(ordinary)) < 5 * np.sqrt(len(ordinary) * 0.15 * 0.85) + slack


@pytest.mark.parametrize("power", [-0.5, 0.5])
def test_chances_follow_the_power_of_the_frequency(power: float) -> None:
    policy = Adaptive(FREQUENCIES, power, 0.0)
    chosen = np.bincount(LAID.ids[policy.choose(LAID, KEY, 0.15)], minlength=V)
    expected = np.minimum(policy.scale(0.15) * policy.weights, 1)
    common = int(FREQUENCIES.argmax())
    rare = int(np.where(FREQUENCIES > 0, FREQUENCIES, np.inf).argmin())
    assert FREQUENCIES[common] > 5 * FREQUENCIES[rare]
    for token in (common, SPECIALS + 50, SPECIALS + 150, rare):
        assert_share(chosen[token], FREQUENCIES[token], expected[token])
    ratio = (FREQUENCIES[common] / FREQUENCIES[rare]) ** power
    assert expected[common] / expected[rare] == pytest.approx(ratio)


@pytest.mark.parametrize("power", [-1.0, 1.0])
def test_chances_follow_the_power_of_the_place(power: float) -> None:
    laid = lay([(number, [50] * 160, []) for number in range(3000)])
    counts = np.zeros(V)
    counts[50] = 1
    places = Adaptive(counts, 0.0, power).choose(laid, KEY, 0.1)
    positions = laid.positions[places[laid.ids[places] == 50]] - 1
    weights = ((np.arange(PLACES) + 0.5) / PLACES) ** power
    for part, weight in enumerate(weights):
        found = ((positions >= 10 * part) & (positions < 10 * part + 10)).sum()
        assert_share(found, 10 * len(laid.cls_positions), 0.1 * weight / weights.mean())


def test_the_place_is_relative_to_the_sample() -> None:
    short, long = (lay([(n, [50] * size, []) for n in range(4000)]) for size in (16, 64))
    policy = Adaptive(np.eye(V)[50], 0.0, 2.0)
    shares = []
    for laid, size in ((short, 16), (long, 64)):
        places = policy.choose(laid, KEY, 0.2)
        last_half = laid.positions[places] > size // 2
        shares.append(last_half[laid.ids[places] == 50].mean())
    assert shares[0] == pytest.approx(shares[1], abs=0.02) and shares[0] > 0.8


def test_an_unseen_token_counts_as_the_rarest() -> None:
    counts = np.array([0, 0, 100.0, 4.0, 0.0])
    assert Adaptive(counts, -0.5, 0.0).weights[4] == Adaptive(counts, -0.5, 0.0).weights[3]
    assert np.isfinite(Adaptive(np.zeros(5), -0.5, 0.0).scale(0.15))
