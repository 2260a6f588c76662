"""Samples laid out by hand, one after another, for policies to choose from."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_prep.counter_rng import integers_below, key_of
from pretrain.masking.base import POSITION_BITS, Laid

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIALS = 5
Sample = tuple[int, Sequence[int], Sequence[int]]  # number, ids of A, ids of B (empty: none)
Int64Array = npt.NDArray[np.int64]


def lay(samples: Sequence[Sample], padding: int = 0) -> Laid:
    """Return the samples with [CLS] and [SEP], and padding after each of them."""
    ids: list[int] = []
    counters, cls_positions, lengths, segments = [], [], [], []
    for number, a, b in samples:
        cls_positions.append(len(ids))
        segments += [len(ids) + 1] + ([len(ids) + 2 + len(a)] if len(b) else [])
        own = [CLS, *a, SEP, *([*b, SEP] if len(b) else [])]
        lengths.append(len(own))
        ids += own + [PAD] * padding
        counters += [number << POSITION_BITS | place for place in range(len(own) + padding)]
    return Laid(
        ids=np.array(ids),
        counters=np.array(counters, np.uint64),
        cls_positions=np.array(cls_positions, np.int64),
        lengths=np.array(lengths),
        segments=np.array(segments),
    )


def draw_samples(
    count: int, vocab_size: int, longest: int = 120, key: str = "text"
) -> list[Sample]:
    """Draw samples; the smaller an id, the more frequent. A quarter have a single segment."""
    samples: list[Sample] = []
    for number in range(count):
        draws = key_of("text", number)
        a, b = (1 + integers_below(draws, [0, 1], longest // 2)).tolist()
        lot = integers_below(key_of("ids", number), np.arange(a + b), vocab_size - SPECIALS)
        skewed = SPECIALS + lot * lot // (vocab_size - SPECIALS)
        samples.append((number, skewed[:a].tolist(), skewed[a:].tolist() if number % 4 else []))
    return samples


def inner_places(laid: Laid) -> Int64Array:
    """Return the places of ordinary tokens."""
    return np.flatnonzero(laid.ids >= SPECIALS)


def assert_share(count: float, total: float, share: float, cluster: float = 1.0) -> None:
    """Allow five deviations of a binomial: a fair draw fails once in two million times.

    Args:
        count: how many there were.
        total: of how many.
        share: how many there should be on average.
        cluster: by how much drawing several together widens the deviation squared.
    """
    deviation = np.sqrt(cluster * total * share * (1 - share))
    assert abs(count - total * share) < 5 * deviation + 1e-9, (count, total * share, deviation)
