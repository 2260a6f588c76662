"""Hand-made samples, laid out one after another as input of masking policies."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_prep.counter_rng import integers_below, key_of
from pretrain.masking.packed_rows import POSITION_BITS, PackedRows

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIALS = 5
Sample = tuple[int, Sequence[int], Sequence[int]]  # number, ids of A, ids of B (empty: none)
Int64Array = npt.NDArray[np.int64]


def lay_out(samples: Sequence[Sample], padding: int = 0) -> PackedRows:
    """Return the samples with [CLS] and [SEP], and padding after each of them."""
    ids: list[int] = []
    types: list[int] = []
    counters, starts, lengths, segments = [], [], [], []
    for number, a, b in samples:
        starts.append(len(ids))
        segments += [len(ids) + 1] + ([len(ids) + 2 + len(a)] if len(b) else [])
        own = [CLS, *a, SEP, *([*b, SEP] if len(b) else [])]
        lengths.append(len(own))
        ids += own + [PAD] * padding
        types += [int(position > len(a) + 1) for position in range(len(own))] + [0] * padding
        counters += [number << POSITION_BITS | position for position in range(len(own) + padding)]
    positions = np.array(counters, np.uint64) & np.uint64((1 << POSITION_BITS) - 1)
    return PackedRows(
        input_ids=np.array(ids),
        token_types=np.array(types),
        positions=np.where(np.array(ids) == PAD, 0, positions.astype(np.int64)),
        sample_ids=(np.array(ids) != PAD).astype(np.int32),  # as if each lay in a row of its own
        counters=np.array(counters, np.uint64),
        sample_starts=np.array(starts, np.int64),
        sample_lengths=np.array(lengths),
        segment_starts=np.array(segments),
        nsp_labels=np.zeros(len(starts), np.int64),
    )


def draw_samples(count: int, vocab_size: int, longest: int = 120) -> list[Sample]:
    """Draw samples; the smaller an id, the more frequent. A quarter have a single segment."""
    samples: list[Sample] = []
    for number in range(count):
        draws = key_of("text", number)
        a, b = (1 + integers_below(draws, [0, 1], longest // 2)).tolist()
        drawn = integers_below(key_of("ids", number), np.arange(a + b), vocab_size - SPECIALS)
        skewed = SPECIALS + drawn * drawn // (vocab_size - SPECIALS)
        samples.append((number, skewed[:a].tolist(), skewed[a:].tolist() if number % 4 else []))
    return samples


def ordinary_tokens(rows: PackedRows) -> Int64Array:
    """Return the indices of ordinary tokens."""
    return np.flatnonzero(rows.input_ids >= SPECIALS)


def assert_share(count: float, total: float, share: float, cluster: float = 1.0) -> None:
    """Allow five deviations of a binomial: a fair draw fails once in two million times.

    Args:
        count: observed number.
        total: out of how many.
        share: expected share.
        cluster: by how much drawing several together widens the deviation squared.
    """
    deviation = np.sqrt(cluster * total * share * (1 - share))
    assert abs(count - total * share) < 5 * deviation + 1e-9, (count, total * share, deviation)
