"""Spans: up to three whole words in a row, as ALBERT masks them (arXiv 1909.11942, section 4.1)."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import hash64
from pretrain.masking.base import Laid, threshold
from pretrain.masking.whole_word import WordTable, places_of

# p(n) = (1/n) / (1 + 1/2 + 1/3); REACH[k] is the chance that a span has more than k words.
REACH = (1.0, 5 / 11, 2 / 11)


@dataclass(frozen=True)
class Spans:
    """A span may begin at any word; where two overlap, their union is masked.

    So a word is chosen when a span begins there, or one of two words begins one word earlier, or
    one of three two words earlier. Spans that begin before their segment are drawn too, which
    gives its first words the same chance as all others, and none runs on into the next segment.
    """

    table: WordTable

    def choose(self, laid: Laid, key: np.uint64, rate: float) -> Int64Array:
        """Choose spans so that each word is covered with probability `rate`."""
        words = self.table.first_places(laid)
        inner_key, outer_key = hash64(key, [0, 1])
        limits = [threshold(start_chance(rate) * reach) for reach in REACH]
        bits = hash64(inner_key, laid.counters[words])
        covered = bits < limits[0]
        covered[1:] |= bits[:-1] < limits[1]
        before: npt.NDArray[np.bool_] = np.zeros(len(words), bool)
        before[2:] = bits[:-2] < limits[2]
        # One word before a segment is its special token; two before, there is no word of its own.
        opening = np.searchsorted(words, laid.segments)
        before[opening] = hash64(outer_key, laid.counters[laid.segments]) < limits[2]
        return places_of(words, covered | before, laid)


@lru_cache(maxsize=1)
def start_chance(rate: float) -> float:
    """Return the chance q that a span begins at a word, which covers each word with `rate`.

    It solves 1 - (1 - q r0)(1 - q r1)(1 - q r2) = rate, r the shares in `REACH`, by halving.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        covered = 1 - math.prod(1 - middle * reach for reach in REACH)
        low, high = (middle, high) if covered < rate else (low, middle)
    return high
