"""Collation: packed rows cut into micro-batches and stacked as tensors.

The lists of a micro-batch (masked tokens, sentence pairs, sequences) are padded to one of few
lengths, so that nothing which depends on the length is compiled or allocated for every batch.
N tokens of a micro-batch, K micro-batches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_prep.corpus.shards import Int64Array
from pretrain.data.batch import IGNORE_INDEX, BatchStack
from pretrain.masking.packed_rows import PackedRows

_TOKEN_ARRAYS = ("input_ids", "token_types", "positions", "sample_ids")
# Lists of masked tokens are padded to a multiple of this share of the tokens, and of this number
# at least: fine enough to cost little, coarse enough that lengths repeat.
_MASKED_STEP_SHARE, _MASKED_STEP = 64, 8


def collate(directions: Sequence[PackedRows], row_tokens: int, micro_rows: int) -> BatchStack:
    """Return rows as a stack of micro-batches.

    Args:
        directions: the rows, and with `mask.bidirectional` the same rows with reversed samples,
            which come after the others in each micro-batch.
        row_tokens: tokens of a row.
        micro_rows: rows of a micro-batch, which divides the number of rows.
    """
    forward, size = directions[0], micro_rows * row_tokens
    cut = _Cut(size, len(forward.input_ids) // size)
    starts = sequence_starts(forward, row_tokens)
    return BatchStack(
        tensors={
            **{
                name: _join(getattr(rows, name).reshape(-1, size) for rows in directions)
                for name in _TOKEN_ARRAYS
            },
            "cu_seqlens": _cu_seqlens(starts, cut, micro_rows, len(directions)),
            **_masked_tokens(directions, cut),
            **_sentence_pairs(forward, cut, micro_rows),
        },
        counts=_counts(forward, cut),
        row_tokens=row_tokens,
        directions=len(directions),
    )


def sequence_starts(rows: PackedRows, row_tokens: int) -> Int64Array:
    """Return the indices where samples begin, and the padding of a row: ascending, [C]."""
    size = len(rows.input_ids)
    ends = rows.sample_starts + rows.sample_lengths
    # A row without samples is one sequence of padding.
    starts = np.concatenate([np.arange(0, size, row_tokens), rows.sample_starts, ends])
    return np.unique(starts[starts < size])


@dataclass(frozen=True)
class _Cut:
    """The tokens of packed rows, cut into `number` micro-batches of `size` tokens each."""

    size: int
    number: int

    def count(self, indices: Int64Array) -> Int64Array:
        """Return how many of some indices lie in each micro-batch, [K]."""
        return np.bincount(indices // self.size, minlength=self.number)

    def largest(self, indices: Int64Array) -> int:
        """Return the largest of these counts."""
        return int(self.count(indices).max())

    def stack(self, values: Int64Array, indices: Int64Array, width: int, fill: int) -> Int64Array:
        """Return the values at some indices, by micro-batch and padded, [K, width].

        The indices of a micro-batch must follow one another.
        """
        counts = self.count(indices)
        columns = np.arange(len(indices)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = np.full((self.number, width), fill)
        table[indices // self.size, columns] = values
        return table

    def stack_indices(self, indices: Int64Array, width: int, fill: int) -> Int64Array:
        """Return the indices themselves, counted within their micro-batch, [K, width]."""
        return self.stack(indices % self.size, indices, width, fill)


def _cu_seqlens(starts: Int64Array, cut: _Cut, micro_rows: int, directions: int) -> torch.Tensor:
    width = _roomy(cut.largest(starts), micro_rows)
    table = cut.stack_indices(starts, width, cut.size)
    end = np.full((cut.number, 1), cut.size * directions)
    return _join([*(table + nth * cut.size for nth in range(directions)), end]).int()


def _masked_tokens(directions: Sequence[PackedRows], cut: _Cut) -> dict[str, torch.Tensor]:
    step = max(_MASKED_STEP, cut.size // _MASKED_STEP_SHARE)
    width = _next_multiple(cut.largest(directions[0].masked_positions), step)
    positions, labels = [], []
    for nth, rows in enumerate(directions):
        masked = rows.masked_positions
        positions.append(cut.stack_indices(masked, width, 0) + nth * cut.size)
        labels.append(cut.stack(rows.mlm_labels, masked, width, IGNORE_INDEX))
    return {"masked_positions": _join(positions), "mlm_labels": _join(labels)}


def _sentence_pairs(forward: PackedRows, cut: _Cut, micro_rows: int) -> dict[str, torch.Tensor]:
    """Return the NSP targets: of the forward direction alone."""
    pairs = forward.nsp_labels != IGNORE_INDEX
    starts, labels = forward.sample_starts[pairs], forward.nsp_labels[pairs]
    width = _roomy(cut.largest(starts), micro_rows)
    return {
        "cls_positions": torch.from_numpy(cut.stack_indices(starts, width, 0)),
        "nsp_labels": torch.from_numpy(cut.stack(labels, starts, width, IGNORE_INDEX)),
    }


def _counts(forward: PackedRows, cut: _Cut) -> list[dict[str, int]]:
    """Return the counts of each micro-batch, see `Batch.counts`."""
    lengths = forward.sample_lengths
    owners = forward.sample_starts // cut.size
    counts = {
        "masked": cut.count(forward.masked_positions),
        "samples": cut.count(forward.sample_starts),
        # Summed in fp64, which is exact up to 2^53.
        "tokens": np.bincount(owners, lengths, minlength=cut.number),
        "squares": np.bincount(owners, lengths**2, minlength=cut.number),
    }
    return [
        {name: int(numbers[index]) for name, numbers in counts.items()}
        for index in range(cut.number)
    ]


def _next_multiple(count: int, step: int) -> int:
    return max(1, -(-count // step)) * step


def _roomy(count: int, rows: int) -> int:
    """Return a list length of at least `count`: 2, 3, 4, 6, 8, 12, 16, ... times the rows.

    Corpora differ in how many samples share a row, from one to dozens. A bound that holds for
    all of them would be mostly empty, and attention kernels reserve memory for each sequence;
    batches of one corpus need one or two of these lengths.
    """
    room, following = 2, 3
    while room * rows < count:
        room, following = following, 2 * room
    return room * rows


def _join(parts: Iterable[npt.NDArray[Any]]) -> torch.Tensor:
    """Return arrays [K, ...] side by side as one tensor."""
    arrays = list(parts)
    return torch.from_numpy(arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1))
