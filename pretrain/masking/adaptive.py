"""Adaptive masking: a token's probability depends on its frequency and its position.

    p(token, position) = min(1, c · frequency(token)^a · position^b)

c makes the mean over the corpus the rate, clipping included. a = -0.5 is the sampling of XLM
(arXiv 1901.07291, section 3.3), which masks rare tokens more often. The position runs from 0 to 1
through a sample; b > 0 masks its later tokens more often, b < 0 the earlier ones.
"""

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import uniform
from pretrain.masking.packed_rows import PackedRows

Float64Array = npt.NDArray[np.float64]

# Positions are rounded to the centres of 16 bins, so that a negative power has no pole at 0.
POSITION_BINS = 16
_BISECTIONS = 100


class Adaptive:
    """An independent Bernoulli draw for every token, with a probability of its own.

    Args:
        frequencies: occurrences of each id in the corpus, 0 for special tokens, [V].
        frequency_power: a above.
        position_power: b above.
    """

    def __init__(
        self, frequencies: Float64Array, frequency_power: float, position_power: float
    ) -> None:
        seen = frequencies > 0
        # A token that only the validation text contains counts as one of the rarest.
        floor = frequencies[seen].min() if seen.any() else 1.0
        share = np.maximum(frequencies, floor) / max(frequencies.sum(), 1.0)
        # Relative to the most frequent token, so that no power overflows.
        self.weights: Float64Array = np.exp(frequency_power * np.log(share / share.max()))
        bin_centres = (np.arange(POSITION_BINS) + 0.5) / POSITION_BINS
        self.position_weights = bin_centres**position_power
        self._shares = frequencies / max(frequencies.sum(), 1.0)
        self._by_weight = np.argsort(self.weights, kind="stable")
        self._scale: tuple[float, float] = (0.0, 0.0)  # the last rate, and its c

    def choose(self, rows: PackedRows, key: np.uint64, rate: float) -> Int64Array:
        """Choose each token with its own probability; `rate` is their mean over the corpus."""
        probability = self.weights[rows.input_ids]
        probability *= self.scale(rate)
        if self.position_weights.min() < self.position_weights.max():
            probability *= self.position_weights[_position_bins(rows)]
        return np.flatnonzero(uniform(key, rows.counters) < probability)

    def scale(self, rate: float) -> float:
        """Return c for a rate, cached for the last one.

        Tokens and positions are taken as independent, and positions as equally frequent.
        """
        if self._scale[0] != rate:
            self._scale = (rate, self._solve(rate))
        return self._scale[1]

    def _solve(self, rate: float) -> float:
        """Find c by bisection: the mean probability rises with c, clipping included."""
        weights, shares = self.weights[self._by_weight], self._shares[self._by_weight]
        # Sorted by weight, those that are not clipped come first: sums of both by look-up.
        weighted = np.concatenate([[0.0], np.cumsum(weights * shares)])
        clipped = np.concatenate([np.cumsum(shares[::-1])[::-1], [0.0]])
        low, high = 0.0, 1.0 / (weights[0] * self.position_weights.min())
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            scales = middle * self.position_weights
            first_clipped = np.searchsorted(weights, 1.0 / np.maximum(scales, 1e-300))
            mean = (scales * weighted[first_clipped] + clipped[first_clipped]).mean()
            low, high = (middle, high) if mean < rate else (low, middle)
        return high


def _position_bins(rows: PackedRows) -> Int64Array:
    """Return the bin of each token's position within its sample, [N].

    [CLS] and the last [SEP] are not counted. Padding gets some bin: it is never masked.
    """
    inner = np.maximum(rows.sample_lengths - 2, 1)
    extents = np.diff(np.append(rows.sample_starts, len(rows.input_ids)))
    bins = (rows.positions - 1) * POSITION_BINS // np.repeat(inner, extents)
    return np.clip(bins, 0, POSITION_BINS - 1)
