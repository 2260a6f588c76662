"""Masking: which tokens a model must predict, and what it reads in their place.

Every decision is a pure function of (key, sample, position): the same at any number of ranks,
workers and restarts, whatever else is in the batch. *Which* tokens is decided by a policy (uniform
below, the others in a file each); the replacements are drawn the same way for all policies.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import UInt64Array, hash64
from pretrain.masking.packed_rows import PackedRows

_KIND_BITS, _ID_BITS = 16, 24  # parts of one 64-bit draw
_CERTAIN = 2**64 - 1


class Policy(Protocol):
    """Chooses the tokens to mask."""

    def choose(self, rows: PackedRows, key: np.uint64, rate: float) -> Int64Array:
        """Return the indices of the chosen tokens, ascending.

        A decision may depend on everything of a sample and on nothing outside it. Special tokens
        may be among the chosen: they are filtered out afterwards, and no decision about another
        token may depend on them.

        Args:
            rows: before masking.
            key: of this policy's draws.
            rate: share of the ordinary tokens to choose.
        """
        ...


@dataclass(frozen=True)
class Uniform:
    """An independent Bernoulli draw for every token, as in BERT (arXiv 1810.04805, section 3.1)."""

    def choose(self, rows: PackedRows, key: np.uint64, rate: float) -> Int64Array:
        """Choose each token with probability `rate`."""
        return np.flatnonzero(hash64(key, rows.counters) < threshold(rate))


@dataclass(frozen=True, kw_only=True)
class Masking:
    """A policy, and the replacements: [MASK], a random token, or the token itself."""

    policy: Policy
    as_mask: float
    as_random: float
    mask_id: int
    vocabulary: Int64Array  # the ids that random replacements are drawn from
    maskable: npt.NDArray[np.bool_]  # by id: false for special tokens

    def apply(self, rows: PackedRows, key: np.uint64, rate: float) -> PackedRows:
        """Return the rows masked: with replaced ids, masked positions and labels.

        Args:
            rows: before masking; they are left as they are.
            key: keyed on the purpose, the seed and the epoch.
            rate: share of the ordinary tokens to mask.
        """
        choose_key, replace_key = hash64(key, [0, 1])
        positions = self.policy.choose(rows, choose_key, rate)
        labels = rows.input_ids[positions]
        ordinary = self.maskable[labels]
        positions, labels = positions[ordinary], labels[ordinary]
        ids = rows.input_ids.copy()
        ids[positions] = self._replacements(labels, hash64(replace_key, rows.counters[positions]))
        return replace(rows, input_ids=ids, masked_positions=positions, mlm_labels=labels)

    def _replacements(self, labels: Int64Array, bits: UInt64Array) -> Int64Array:
        """Return the ids to show in place of some tokens, given 64 random bits for each, [M]."""
        kind = ((bits >> np.uint64(_ID_BITS)) & np.uint64(2**_KIND_BITS - 1)) * 2.0**-_KIND_BITS
        index = (bits & np.uint64(2**_ID_BITS - 1)) * np.uint64(len(self.vocabulary))
        random_ids = self.vocabulary[(index >> np.uint64(_ID_BITS)).astype(np.int64)]
        shown = np.where(kind < self.as_mask + self.as_random, random_ids, labels)
        shown[kind < self.as_mask] = self.mask_id
        return shown


def threshold(probability: float) -> np.uint64:
    """Return the bound that a uniform 64-bit draw is below with a probability."""
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
