"""Row layout: where samples lie in their rows, and the arrays that follow from it, with numpy.

Samples follow one another from the start of their row and padding ends it, so every array is a
value for each sample repeated over its tokens, and a few corrections. N tokens, S samples.
"""

from dataclasses import dataclass, replace

import numpy as np

from data_prep.corpus.shards import Corpus, Int64Array
from data_prep.counter_rng import UInt64Array
from data_prep.samples.sentence_pairs import SampleArray
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.data.batch import IGNORE_INDEX
from pretrain.masking.base import Masking, ranges
from pretrain.masking.packed_rows import POSITION_BITS, PackedRows

IS_NEXT, NOT_NEXT = 0, 1  # as in transformers' `next_sentence_label`


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where samples lie."""

    starts: Int64Array  # [S] index of [CLS]
    index_in_row: Int64Array  # [S] 0, 1, ...
    a_length: Int64Array  # [S]
    b_length: Int64Array  # [S] 0 for a single segment
    lengths: Int64Array  # [S] special tokens included
    extents: Int64Array  # [S] the same, and the padding after a row's last sample
    padding: Int64Array  # indices of padding


class RowMaker:
    """Writes samples into rows and masks them.

    Args:
        corpus: holds the tokens.
        tokenizer: special ids.
        masking: which tokens are masked, and how.
        row_tokens: T, tokens of a row.
        bidirectional: make each row a second time, with its samples reversed.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: LoadedTokenizer,
        masking: Masking,
        row_tokens: int,
        bidirectional: bool,
    ) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._masking = masking
        self._row_tokens = row_tokens
        self._bidirectional = bidirectional

    def make(
        self,
        samples: SampleArray,
        numbers: Int64Array,
        rows: Int64Array,
        mask_key: np.uint64,
        rate: float,
    ) -> list[PackedRows]:
        """Return masked rows, and with `bidirectional` those reversed as well.

        Args:
            samples: SAMPLE records grouped by row, [S].
            numbers: of the samples within their epoch, the counters of their masks, [S].
            rows: the row of each, 0, 1, ... without a gap, [S].
            mask_key: keyed on the purpose, the seed and the epoch.
            rate: share of tokens to mask.
        """
        layout = lay_out(samples, rows, self._row_tokens)
        unmasked = self._write(samples, numbers, layout)
        forward = self._masking.apply(unmasked, mask_key, rate)
        return [forward, reverse(forward, layout)] if self._bidirectional else [forward]

    def blank(self, count: int) -> list[PackedRows]:
        """Return rows without samples, in as many directions as `make`."""
        size, none = count * self._row_tokens, np.zeros(0, np.int64)
        rows = PackedRows(
            input_ids=np.full(size, self._tokenizer.pad_id, np.int64),
            token_types=np.zeros(size, np.int64),
            positions=np.zeros(size, np.int64),
            sample_ids=np.zeros(size, np.int32),
            counters=np.zeros(size, np.uint64),
            sample_starts=none,
            sample_lengths=none,
            segment_starts=none,
            nsp_labels=none,
        )
        return [rows] * (2 if self._bidirectional else 1)

    def _write(self, samples: SampleArray, numbers: Int64Array, layout: Layout) -> PackedRows:
        """Return the rows before masking."""
        ids, segment_starts = self._write_ids(samples, layout)
        positions = np.arange(len(ids)) - np.repeat(layout.starts, layout.extents)
        positions[layout.padding] = 0
        sample_ids = np.repeat((layout.index_in_row + 1).astype(np.int32), layout.extents)
        sample_ids[layout.padding] = 0
        nsp_labels = np.where(samples["is_next"], IS_NEXT, NOT_NEXT)
        nsp_labels[layout.b_length == 0] = IGNORE_INDEX
        return PackedRows(
            input_ids=ids,
            token_types=_token_types(layout.a_length, layout),
            positions=positions,
            sample_ids=sample_ids,
            counters=_counters(numbers, positions, layout.extents),
            sample_starts=layout.starts,
            sample_lengths=layout.lengths,
            segment_starts=segment_starts,
            nsp_labels=nsp_labels,
        )

    def _write_ids(self, samples: SampleArray, layout: Layout) -> tuple[Int64Array, Int64Array]:
        """Return the unmasked ids, [N], and the index of each segment's first token, [G]."""
        ids = np.empty(int(layout.extents.sum()), np.int64)
        middle = layout.starts + layout.a_length + 1
        ids[layout.starts] = self._tokenizer.cls_id
        ids[middle] = self._tokenizer.sep_id
        ids[layout.starts + layout.lengths - 1] = self._tokenizer.sep_id
        ids[layout.padding] = self._tokenizer.pad_id
        sources = _interleave(samples["a_start"], samples["b_start"])
        lengths = _interleave(layout.a_length, layout.b_length)
        targets = _interleave(layout.starts + 1, middle + 1)
        real = lengths > 0
        self._corpus.gather(sources[real], lengths[real], ids, targets[real])
        return ids, targets[real]


def lay_out(samples: SampleArray, rows: Int64Array, row_tokens: int) -> Layout:
    """Return where samples lie, given the row of each, [S]."""
    a_length = samples["a_length"].astype(np.int64)
    b_length = samples["b_length"].astype(np.int64)
    lengths = a_length + b_length + 2 + (b_length > 0)
    ends = np.cumsum(lengths)
    opens_row = np.concatenate([[True], rows[1:] != rows[:-1]])
    first_in_row = np.flatnonzero(opens_row)[np.cumsum(opens_row) - 1]
    starts = rows * row_tokens + (ends - lengths) - (ends - lengths)[first_in_row]
    extents = np.diff(np.append(starts, (int(rows[-1]) + 1) * row_tokens))
    return Layout(
        starts=starts,
        index_in_row=np.arange(len(rows)) - first_in_row,
        a_length=a_length,
        b_length=b_length,
        lengths=lengths,
        extents=extents,
        padding=ranges(starts + lengths, extents - lengths),
    )


def reverse(forward: PackedRows, layout: Layout) -> PackedRows:
    """Return the rows with each sample reversed: [CLS] B' [SEP] A' [SEP], or [CLS] A' [SEP].

    Everything between [CLS] and the last [SEP] is mirrored, so the same tokens are masked, with
    the same replacements, in the same order as in the forward rows.
    """
    last = layout.starts + layout.lengths - 1
    mirror = np.repeat(layout.starts + last, layout.extents) - np.arange(len(forward.input_ids))
    for fixed in (layout.starts, last, layout.padding):
        mirror[fixed] = fixed
    front_length = np.where(layout.b_length > 0, layout.b_length, layout.a_length)
    return replace(
        forward,
        input_ids=forward.input_ids[mirror],
        token_types=_token_types(front_length, layout),
        masked_positions=mirror[forward.masked_positions],
    )


def _counters(numbers: Int64Array, positions: Int64Array, extents: Int64Array) -> UInt64Array:
    counters = np.repeat(numbers << POSITION_BITS, extents)
    counters |= positions
    return counters.view(np.uint64)


def _token_types(front_length: Int64Array, layout: Layout) -> Int64Array:
    """Return 0 up to the first [SEP] of each sample and 1 after it; 0 in padding."""
    front = np.minimum(front_length + 2, layout.extents)
    parts = _interleave(front, layout.extents - front)
    types = np.repeat(np.tile(np.array([0, 1]), len(front)), parts)
    types[layout.padding] = 0
    return types


def _interleave(first: Int64Array, second: Int64Array) -> Int64Array:
    """Return `first[0], second[0], first[1], second[1], ...`, [2 * S]."""
    return np.stack([first, second], axis=1).reshape(-1)
