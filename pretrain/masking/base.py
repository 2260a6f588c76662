"""Masking: which tokens a model must predict, and what it sees in their place.

Every decision is a pure function of (key, sample, position): the same at any number of ranks,
workers and restarts, whatever else is in the batch. *Which* tokens is decided by a policy, one
file each in `masks/`; what is shown in their place is the same for all policies.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import UInt64Array, hash64
from data_prep.samples.epoch_index import MAX_ROW_TOKENS

POSITION_BITS = MAX_ROW_TOKENS.bit_length() - 1
_SHOW_BITS, _WORD_BITS = 16, 24  # parts of one 64-bit draw
_CERTAIN = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class Laid:
    """Samples as they lie in rows: N places, S samples, G segments, all in the order of places.

    A policy may look at everything of a sample, and at nothing but the sample.
    """

    ids: Int64Array  # token ids with specials and padding, [N]
    counters: UInt64Array  # sample << POSITION_BITS | position: what draws are keyed on, [N]
    cls_positions: Int64Array  # place of each sample's [CLS], [S]
    lengths: Int64Array  # of each sample, specials included, [S]
    segments: Int64Array  # place of each segment's first token, [G]

    @property
    def positions(self) -> Int64Array:
        """Place of each token within its sample, [N]."""
        return (self.counters & np.uint64((1 << POSITION_BITS) - 1)).astype(np.int64)


class Policy(Protocol):
    """Chooses tokens."""

    def choose(self, laid: Laid, key: np.uint64, rate: float) -> Int64Array:
        """Return the places of the chosen tokens, ascending.

        Special tokens may be among them: they are sorted out afterwards, and no decision about
        another token depends on it.
        """
        ...


@dataclass(frozen=True)
class Uniform:
    """Every token by its own lot, as in BERT (arXiv 1810.04805, section 3.1)."""

    def choose(self, laid: Laid, key: np.uint64, rate: float) -> Int64Array:
        """Choose each place with probability `rate`."""
        return np.flatnonzero(hash64(key, laid.counters) < threshold(rate))


@dataclass(frozen=True, kw_only=True)
class Masking:
    """A policy, and what the model is shown: [MASK], a random word, or the token itself."""

    policy: Policy
    as_mask: float
    as_random: float
    mask_id: int
    vocabulary: Int64Array  # the ids that random replacements are drawn from
    maskable: npt.NDArray[np.bool_]  # by id: false for special tokens

    def __call__(
        self, laid: Laid, key: np.uint64, rate: float
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Choose tokens to predict and what is shown in their place.

        Args:
            laid: samples in their rows.
            key: keyed on the purpose, the seed and the epoch.
            rate: share of the ordinary tokens to predict.

        Returns:
            the places of the M chosen tokens, ascending; their ids; and the ids that the model
            sees there, all [M].
        """
        choose_key, show_key = hash64(key, [0, 1])
        places = self.policy.choose(laid, choose_key, rate)
        labels = laid.ids[places]
        ordinary = self.maskable[labels]
        places, labels = places[ordinary], labels[ordinary]
        return places, labels, self._show(labels, hash64(show_key, laid.counters[places]))

    def _show(self, labels: Int64Array, bits: UInt64Array) -> Int64Array:
        lot = ((bits >> np.uint64(_WORD_BITS)) & np.uint64(2**_SHOW_BITS - 1)) * 2.0**-_SHOW_BITS
        word = (bits & np.uint64(2**_WORD_BITS - 1)) * np.uint64(len(self.vocabulary))
        random_word = self.vocabulary[(word >> np.uint64(_WORD_BITS)).astype(np.int64)]
        shown = np.where(lot < self.as_mask + self.as_random, random_word, labels)
        shown[lot < self.as_mask] = self.mask_id
        return shown


def threshold(probability: float) -> np.uint64:
    """Return what a 64-bit draw must stay below to come true with a probability."""
    return np.uint64(min(int(probability * 2.0**64), _CERTAIN))


def rate_at(start: float, end: float | None, step: int, steps: int) -> float:
    """Return the rate of a step, counted from 0: linear from `start` to `end` at the last one."""
    if end is None or steps < 2:
        return start
    return start + (end - start) * min(step / (steps - 1), 1.0)


def ranges(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """Return `start, start + 1, ...` for each range, one after another."""
    ends = np.cumsum(lengths)
    out = np.repeat(starts - (ends - lengths), lengths)
    out += np.arange(len(out))
    return out
