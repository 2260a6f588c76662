"""Spans: one to three consecutive whole words, as in ALBERT (arXiv 1909.11942, section 4.1)."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import hash64
from pretrain.masking.base import threshold
from pretrain.masking.packed_rows import PackedRows
from pretrain.masking.whole_word import WordTable, tokens_of_words

# p(n) = (1/n) / (1 + 1/2 + 1/3); LONGER_THAN[k] is the probability of more than k words.
LONGER_THAN = (1.0, 5 / 11, 2 / 11)


@dataclass(frozen=True)
class Spans:
    """A Bernoulli draw for a span at every word; where two overlap, their union is masked.

    So a word is masked when a span starts there, or one of at least two words starts one word
    earlier, or one of three words starts two words earlier. Spans that start before their segment
    are drawn too, which gives its first words the same probability as all others, and no span
    continues into the next segment.
    """

    table: WordTable

    def choose(self, rows: PackedRows, key: np.uint64, rate: float) -> Int64Array:
        """Choose spans so that each word is covered with probability `rate`."""
        words = self.table.word_starts(rows)
        inner_key, outer_key = hash64(key, [0, 1])
        limits = [threshold(start_probability(rate) * tail) for tail in LONGER_THAN]
        bits = hash64(inner_key, rows.counters[words])
        covered = bits < limits[0]
        covered[1:] |= bits[:-1] < limits[1]
        two_before: npt.NDArray[np.bool_] = np.zeros(len(words), bool)
        two_before[2:] = bits[:-2] < limits[2]
        # One word before a segment is a special token, whose draw is used. Two words before it may
        # be a word of another segment, so that start has a draw of its own.
        first_words = np.searchsorted(words, rows.segment_starts)
        outer_bits = hash64(outer_key, rows.counters[rows.segment_starts])
        two_before[first_words] = outer_bits < limits[2]
        return tokens_of_words(words, covered | two_before, rows)


@lru_cache(maxsize=1)
def start_probability(rate: float) -> float:
    """Return the probability q of a span at a word, with which `rate` of the words are covered.

    It solves 1 - (1 - q r0)(1 - q r1)(1 - q r2) = rate, r from `LONGER_THAN`, by bisection.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        covered = 1 - math.prod(1 - middle * tail for tail in LONGER_THAN)
        low, high = (middle, high) if covered < rate else (low, middle)
    return high
