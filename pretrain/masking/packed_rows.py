"""Packed rows: several samples one after another in rows of a fixed length, as numpy arrays.

Masking policies read them, masking fills in the masked tokens, and `pretrain/data/collate.py`
turns them into tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import UInt64Array
from data_prep.samples.epoch_index import MAX_ROW_TOKENS

POSITION_BITS = MAX_ROW_TOKENS.bit_length() - 1


def _empty() -> Int64Array:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """Rows of packed samples, flattened: N tokens, S samples, G segments, M masked tokens.

    The samples of a row follow one another from its start, and padding fills its end. Indices
    count through all rows; samples and segments are in ascending order.
    """

    input_ids: Int64Array  # [N] ids with special tokens and padding, as the model reads them
    token_types: Int64Array  # [N] 1 in the second segment
    positions: Int64Array  # [N] within the sample; 0 in padding
    sample_ids: npt.NDArray[np.int32]  # [N] 1, 2, ... within a row; 0 in padding
    counters: UInt64Array  # [N] sample << POSITION_BITS | position: counters of random draws
    sample_starts: Int64Array  # [S] index of [CLS]
    sample_lengths: Int64Array  # [S] special tokens included
    segment_starts: Int64Array  # [G] index of the first token of a segment
    nsp_labels: Int64Array  # [S] IGNORE_INDEX for a sample with one segment
    # Empty until the rows are masked.
    masked_positions: Int64Array = field(default_factory=_empty)  # [M]
    mlm_labels: Int64Array = field(default_factory=_empty)  # [M]


_INDICES = ("sample_starts", "segment_starts", "masked_positions")


def concatenate(parts: Sequence[PackedRows]) -> PackedRows:
    """Join rows that follow one another; indices are shifted to count through all of them."""
    if len(parts) == 1:
        return parts[0]
    sizes = [len(part.input_ids) for part in parts]
    shifts = np.cumsum([0, *sizes[:-1]])
    joined = {}
    for name in (each.name for each in fields(PackedRows)):
        arrays = [getattr(part, name) for part in parts]
        if name in _INDICES:
            arrays = [array + shift for array, shift in zip(arrays, shifts, strict=True)]
        joined[name] = np.concatenate(arrays)
    return PackedRows(**joined)
