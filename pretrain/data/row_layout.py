"""Rows: samples written into packed rows and masked, many at a time, with numpy.

Samples lie one after another from the start of their row and padding ends it, so every table is a
value for each sample repeated over its places, and a few corrections.
N places in all, S samples, M masked tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Corpus, Int64Array
from data_prep.counter_rng import UInt64Array
from data_prep.samples.sentence_pairs import SampleArray
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.masking.base import POSITION_BITS, Laid, Masking, ranges

NEXT_LABEL, UNRELATED_LABEL = 0, 1  # as in transformers' `next_sentence_label`


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows, flattened."""

    input_ids: Int64Array  # [N] what the model sees
    token_types: Int64Array  # [N]
    positions: Int64Array  # [N]
    sample_ids: npt.NDArray[np.int32]  # [N]
    masked_positions: Int64Array  # [M]
    mlm_labels: Int64Array  # [M]
    cls_positions: Int64Array  # places of the [CLS] of samples with two segments
    nsp_labels: Int64Array
    starts: Int64Array  # places where a sample or the padding of a row begins, ascending

    def then(self, following: "Rows") -> "Rows":
        """Return these rows with others after them."""
        shift = dict.fromkeys(("masked_positions", "cls_positions", "starts"), len(self.input_ids))
        joined = {
            field.name: np.concatenate(
                [
                    getattr(self, field.name),
                    getattr(following, field.name) + shift.get(field.name, 0),
                ]
            )
            for field in fields(self)
        }
        return Rows(**joined)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where samples lie."""

    first: Int64Array  # [S] place of [CLS]
    nth: Int64Array  # [S] number within the row, from 0
    a_length: Int64Array  # [S]
    b_length: Int64Array  # [S] 0 for a single segment
    lengths: Int64Array  # [S] specials included
    spread: Int64Array  # [S] the same, and the padding after a row's last sample
    padding: Int64Array  # places
    starts: Int64Array  # where a sample or the padding of a row begins


class RowMaker:
    """Lays samples into rows.

    Args:
        corpus: where the tokens are.
        tokenizer: special ids.
        masking: which tokens are masked, and how.
        row_tokens: T, places of a row.
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

    def lay(
        self,
        samples: SampleArray,
        numbers: Int64Array,
        rows: Int64Array,
        mask_key: np.uint64,
        rate: float,
    ) -> list[Rows]:
        """Lay samples into rows and mask them: the rows, and those reversed if they are wanted.

        Args:
            samples: SAMPLE records grouped by row, [S].
            numbers: of the samples within their epoch, which keys their masks, [S].
            rows: the row of each, 0, 1, ... without a gap, [S].
            mask_key: keyed on the purpose, the seed and the epoch.
            rate: share of tokens to mask.
        """
        layout = _lay_out(samples, rows, self._row_tokens)
        size = int(layout.spread.sum())
        ids, segments = self._write_ids(samples, layout, size)
        positions = np.arange(size) - np.repeat(layout.first, layout.spread)
        laid = Laid(
            ids=ids,
            counters=_counters(numbers, positions, layout.spread),
            cls_positions=layout.first,
            lengths=layout.lengths,
            segments=segments,
        )
        places, labels, shown = self._masking(laid, mask_key, rate)
        ids[places] = shown
        positions[layout.padding] = 0
        sample_ids = np.repeat((layout.nth + 1).astype(np.int32), layout.spread)
        sample_ids[layout.padding] = 0
        pairs = layout.b_length > 0
        forward = Rows(
            input_ids=ids,
            token_types=_token_types(layout.a_length, layout),
            positions=positions,
            sample_ids=sample_ids,
            masked_positions=places,
            mlm_labels=labels,
            cls_positions=layout.first[pairs],
            nsp_labels=np.where(samples["is_next"][pairs], NEXT_LABEL, UNRELATED_LABEL),
            starts=layout.starts,
        )
        return [forward, _reverse(forward, layout)] if self._bidirectional else [forward]

    def blank(self, count: int) -> list[Rows]:
        """Return rows without samples."""
        size, none = count * self._row_tokens, np.zeros(0, np.int64)
        rows = Rows(
            input_ids=np.full(size, self._tokenizer.pad_id, np.int64),
            token_types=np.zeros(size, np.int64),
            positions=np.zeros(size, np.int64),
            sample_ids=np.zeros(size, np.int32),
            masked_positions=none,
            mlm_labels=none,
            cls_positions=none,
            nsp_labels=none,
            starts=np.arange(count) * self._row_tokens,
        )
        return [rows] * (2 if self._bidirectional else 1)

    def _write_ids(
        self, samples: SampleArray, layout: Layout, size: int
    ) -> tuple[Int64Array, Int64Array]:
        """Return the unmasked ids, [N], and the place of each segment's first token."""
        ids = np.empty(size, np.int64)
        middle = layout.first + layout.a_length + 1
        ids[layout.first] = self._tokenizer.cls_id
        ids[middle] = self._tokenizer.sep_id
        ids[layout.first + layout.lengths - 1] = self._tokenizer.sep_id
        ids[layout.padding] = self._tokenizer.pad_id
        starts = _interleave(samples["a_start"], samples["b_start"])
        lengths = _interleave(layout.a_length, layout.b_length)
        places = _interleave(layout.first + 1, middle + 1)
        held = lengths > 0
        self._corpus.gather(starts[held], lengths[held], ids, places[held])
        return ids, places[held]


def concatenate(parts: Sequence[list[Rows]]) -> list[Rows]:
    """Join rows that lie one after another, each direction on its own."""
    joined = parts[0]
    for part in parts[1:]:
        joined = [own.then(more) for own, more in zip(joined, part, strict=True)]
    return joined


def _lay_out(samples: SampleArray, rows: Int64Array, row_tokens: int) -> Layout:
    a_length = samples["a_length"].astype(np.int64)
    b_length = samples["b_length"].astype(np.int64)
    lengths = a_length + b_length + 2 + (b_length > 0)
    ends = np.cumsum(lengths)
    opens_row = np.concatenate([[True], rows[1:] != rows[:-1]])
    opening = np.flatnonzero(opens_row)[np.cumsum(opens_row) - 1]
    first = rows * row_tokens + (ends - lengths) - (ends - lengths)[opening]
    spread = np.diff(np.append(first, (int(rows[-1]) + 1) * row_tokens))
    return Layout(
        first=first,
        nth=np.arange(len(rows)) - opening,
        a_length=a_length,
        b_length=b_length,
        lengths=lengths,
        spread=spread,
        padding=ranges(first + lengths, spread - lengths),
        starts=_interleave(first, first + lengths)[_interleave(lengths, spread - lengths) > 0],
    )


def _counters(numbers: Int64Array, positions: Int64Array, spread: Int64Array) -> UInt64Array:
    counters = np.repeat(numbers << POSITION_BITS, spread)
    counters |= positions
    return counters.view(np.uint64)


def _token_types(front_length: Int64Array, layout: Layout) -> Int64Array:
    """Return 0 up to the first [SEP] of each sample and 1 after it; padding is 0."""
    front = np.minimum(front_length + 2, layout.spread)
    parts = _interleave(front, layout.spread - front)
    types = np.repeat(np.tile(np.array([0, 1]), len(front)), parts)
    types[layout.padding] = 0
    return types


def _reverse(forward: Rows, layout: Layout) -> Rows:
    """Return the rows with each sample reversed: [CLS] B' [SEP] A' [SEP], or [CLS] A' [SEP].

    Everything between [CLS] and the last [SEP] is mirrored, so the same tokens are masked and
    shown as the same. Next sentences are asked for in the forward direction alone.
    """
    last = layout.first + layout.lengths - 1
    mirror = np.repeat(layout.first + last, layout.spread) - np.arange(len(forward.input_ids))
    for fixed in (layout.first, last, layout.padding):
        mirror[fixed] = fixed
    none = np.zeros(0, np.int64)
    pairs = layout.b_length > 0
    return Rows(
        input_ids=forward.input_ids[mirror],
        token_types=_token_types(np.where(pairs, layout.b_length, layout.a_length), layout),
        positions=forward.positions,
        sample_ids=forward.sample_ids,
        masked_positions=mirror[forward.masked_positions],
        mlm_labels=forward.mlm_labels,
        cls_positions=none,
        nsp_labels=none,
        starts=forward.starts,
    )


def _interleave(first: Int64Array, second: Int64Array) -> Int64Array:
    """Return the first of each, the second of each, in turns: [2 * S]."""
    return np.stack([first, second], axis=1).reshape(-1)
