"""Spans: one to three words within a segment, every word masked with the same probability."""

import numpy as np
import pytest

from data_prep.counter_rng import key_of
from pretrain.masking.packed_rows import PackedRows
from pretrain.masking.spans import LONGER_THAN, Spans, start_probability
from pretrain.masking.whole_word import WordTable
from tests.sample_layouts import SPECIALS, assert_share, draw_samples, lay_out

KEY = key_of("mask", 0, 0)
SINGLES = WordTable(begins=np.ones(100, bool), closes=None)
LONG = WordTable(begins=(np.arange(100) % 2 == 0) | (np.arange(100) < SPECIALS), closes=None)


def choose(rows: PackedRows, table: WordTable, rate: float) -> np.ndarray:
    chosen = np.zeros(len(rows.input_ids), bool)
    chosen[Spans(table).choose(rows, KEY, rate)] = True
    return chosen & (rows.input_ids >= SPECIALS)


def test_span_lengths_match_albert() -> None:
    """Span lengths have ALBERT's probabilities."""
    shares = -np.diff([*LONGER_THAN, 0.0])
    assert shares == pytest.approx(np.array([1, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3))


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.9])
def test_start_probability_covers_rate(rate: float) -> None:
    """With the start probability, a word is covered with probability `rate`."""
    q = start_probability(rate)
    assert 1 - (1 - q) * (1 - q * 5 / 11) * (1 - q * 2 / 11) == pytest.approx(rate)


@pytest.mark.parametrize("table", [SINGLES, LONG])
@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_spans_mask_at_rate(table: WordTable, rate: float) -> None:
    """The share of masked tokens is the rate."""
    rows = lay_out(draw_samples(2500, 100))
    ordinary = rows.input_ids >= SPECIALS
    assert_share(choose(rows, table, rate).sum(), ordinary.sum(), rate, cluster=6)


@pytest.mark.parametrize("word", [0, 1, 2, 9])
def test_spans_cover_segment_start(word: int) -> None:
    """The first words of a segment are masked as often as the others."""
    rows = lay_out([(number, [50] * 10, [60] * 10) for number in range(12_000)])
    chosen = choose(rows, SINGLES, 0.2)
    for first in (rows.sample_starts + 1, rows.sample_starts + 12):
        assert_share(chosen[first + word].sum(), len(rows.sample_starts), 0.2)


def test_span_run_lengths() -> None:
    """Runs of covered words are as long as independent span starts make them."""
    rows = lay_out([(number, [50] * 2000, []) for number in range(60)])
    chosen = choose(rows, SINGLES, 0.1)
    follows = chosen[1:][chosen[:-1] & (rows.input_ids[1:] >= SPECIALS)]
    # Probability that the next word is covered too: P(both) / P(one).
    q = start_probability(0.1)
    # Neither of two words: no start at the second, none whose span reaches the first or beyond.
    neither = (1 - q) * (1 - q) * (1 - q * LONGER_THAN[1]) * (1 - q * LONGER_THAN[2])
    both = 1 - 2 * (1 - 0.1) + neither
    assert_share(follows.sum(), len(follows), both / 0.1, cluster=3)


def test_spans_end_with_segment() -> None:
    """A span ends with its segment."""
    # The end of A is independent of the start of B, and a sample of the next one.
    rows = lay_out([(number, [50] * 3, [60] * 3) for number in range(20_000)])
    chosen = choose(rows, SINGLES, 0.3)
    ends, starts = chosen[rows.sample_starts + 3], chosen[rows.sample_starts + 5]
    later = chosen[(rows.sample_starts + 1)[1:]]
    for first, second in ((ends, starts), (chosen[rows.sample_starts + 7][:-1], later)):
        correlation = np.corrcoef(first, second)[0, 1]
        assert abs(correlation) < 5 / np.sqrt(len(first))
    assert np.corrcoef(chosen[rows.sample_starts + 2], ends)[0, 1] > 0.2, "within a segment it does"
