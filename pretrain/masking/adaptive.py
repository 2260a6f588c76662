"""Adaptive masking: a token's chance depends on how frequent it is and where it stands.

    p(token, place) = min(1, c · frequency(token)^a · place^b)

c makes the mean over the corpus the rate, clipping included. a = -0.5 is the sampling of XLM
(arXiv 1901.07291, section 3.3), which lets rare words be asked for more often. The place runs from
0 to 1 through a sample; b > 0 asks for its later tokens more often, b < 0 for the earlier ones.
"""

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import uniform
from pretrain.masking.base import Laid

Float64Array = npt.NDArray[np.float64]

# The place counts in sixteenths, so that a negative power has no pole at the first token.
PLACES = 16
_HALVINGS = 100


class Adaptive:
    """Each token by its own lot, with its own chance.

    Args:
        frequencies: occurrences of each id in the corpus, 0 for special tokens, [V].
        frequency_power: a above.
        position_power: b above.
    """

    def __init__(
        self, frequencies: Float64Array, frequency_power: float, position_power: float
    ) -> None:
        seen = frequencies > 0
        # A token that the training text does not hold may turn up in validation: rarest of all.
        floor = frequencies[seen].min() if seen.any() else 1.0
        share = np.maximum(frequencies, floor) / max(frequencies.sum(), 1.0)
        # Relative to the commonest token, so that no power overflows.
        self.weights: Float64Array = np.exp(frequency_power * np.log(share / share.max()))
        self.place_weights = ((np.arange(PLACES) + 0.5) / PLACES) ** position_power
        self._shares = frequencies / max(frequencies.sum(), 1.0)
        self._by_weight = np.argsort(self.weights, kind="stable")
        self._scale: tuple[float, float] = (0.0, 0.0)  # the last rate, and its c

    def choose(self, laid: Laid, key: np.uint64, rate: float) -> Int64Array:
        """Choose each token with its own chance; `rate` is their mean over the corpus."""
        chance = self.weights[laid.ids]
        chance *= self.scale(rate)
        if self.place_weights.min() < self.place_weights.max():
            chance *= self.place_weights[_places(laid)]
        return np.flatnonzero(uniform(key, laid.counters) < chance)

    def scale(self, rate: float) -> float:
        """Return c for a rate, by halving: the mean rises with c, clipping included.

        Tokens and places are taken as independent, and places as equally frequent.
        """
        if self._scale[0] != rate:
            self._scale = (rate, self._solve(rate))
        return self._scale[1]

    def _solve(self, rate: float) -> float:
        weights, shares = self.weights[self._by_weight], self._shares[self._by_weight]
        # Sorted by weight, those that are not clipped come first: sums of both by look-up.
        weighted = np.concatenate([[0.0], np.cumsum(weights * shares)])
        clipped = np.concatenate([np.cumsum(shares[::-1])[::-1], [0.0]])
        low, high = 0.0, 1.0 / (weights[0] * self.place_weights.min())
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            scales = middle * self.place_weights
            first_clipped = np.searchsorted(weights, 1.0 / np.maximum(scales, 1e-300))
            mean = (scales * weighted[first_clipped] + clipped[first_clipped]).mean()
            low, high = (middle, high) if mean < rate else (low, middle)
        return high


def _places(laid: Laid) -> Int64Array:
    """Return in which of the `PLACES` parts of its sample each token stands, [N].

    [CLS] and the last [SEP] are left out of the count.
    """
    inner = np.maximum(laid.lengths - 2, 1)
    # Padding after a row's last sample is counted to it, and never chosen.
    spread = np.diff(np.append(laid.cls_positions, len(laid.ids)))
    place = (laid.positions - 1) * PLACES // np.repeat(inner, spread)
    return np.clip(place, 0, PLACES - 1)
