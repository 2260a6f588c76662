"""Batches: the rows of a step, as tensors; a pure function of (corpus, seed, step).

Rows are numbered through all epochs: step s takes rows s·R to (s+1)·R. Whatever the number of
ranks and the size of their micro-batches, the union over ranks is therefore the same global
batch, and every rank gets the same number of rows in every step. There is no loader state.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_prep.corpus.shards import Corpus, Int64Array
from data_prep.counter_rng import key_of
from data_prep.samples.epoch_index import EpochIndex, EpochIndexKey, open_epoch_index
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.config.run import MaskOptions, SampleOptions
from pretrain.data.batch import IGNORE_INDEX, Batch, tensors_of
from pretrain.data.row_layout import RowMaker, Rows, concatenate
from pretrain.masking.factory import BuildFirst, open_masking

_TABLES = ("input_ids", "token_types", "positions", "sample_ids")
# Lists of masked tokens are filled up to a multiple of this share of the places, and of this
# number at least: fine enough to cost little, coarse enough that lengths repeat.
_MASKED_STEP_SHARE, _MASKED_STEP = 64, 8


@dataclass(frozen=True, kw_only=True)
class Share:
    """A rank's rows of one step: its micro-batches side by side, as they leave a loader worker.

    The fields are those of `Batch` for K micro-batches; places count within a micro-batch.
    """

    input_ids: torch.Tensor  # [K, N]
    token_types: torch.Tensor  # [K, N]
    positions: torch.Tensor  # [K, N]
    sample_ids: torch.Tensor  # [K, N]
    cu_seqlens: torch.Tensor  # [K, C + 1]
    masked_positions: torch.Tensor  # [K, M]
    mlm_labels: torch.Tensor  # [K, M]
    cls_positions: torch.Tensor  # [K, S]
    nsp_labels: torch.Tensor  # [K, S]
    row_tokens: int
    counts: list[dict[str, int]]  # of each micro-batch, [K]
    directions: int
    # A stored teacher's answers, where a run has them; W words for each masked token.
    cached_ids: torch.Tensor | None = None  # [K, M, W]
    cached_values: torch.Tensor | None = None  # [K, M, W]
    cached_rest: torch.Tensor | None = None  # [K, M]

    def pin_memory(self) -> "Share":
        """Copy into memory that a GPU reads without the processor's help."""
        pinned: dict[str, Any] = {name: t.pin_memory() for name, t in tensors_of(self).items()}
        return replace(self, **pinned)

    def micro_batches(self) -> list[Batch]:
        """Return the micro-batches, which are views."""
        tables = tensors_of(self)
        return [
            Batch(
                **{name: table[index] for name, table in tables.items()},
                row_tokens=self.row_tokens,
                counts=counts,
                directions=self.directions,
            )
            for index, counts in enumerate(self.counts)
        ]


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """What a source reads, by name: this travels to another process, mapped files do not."""

    corpus_path: Path
    split: str
    tokenizer: LoadedTokenizer
    mask: MaskOptions
    seed: int
    row_tokens: int
    cache: Path
    samples: SampleOptions

    def open(self) -> "BatchSource":
        """Open the same source here; its plans and counts are in the cache already.

        Raises:
            UserError: when the corpus has changed.
        """
        return BatchSource(
            Corpus.open(self.corpus_path, self.split),
            self.tokenizer,
            self.mask,
            seed=self.seed,
            row_tokens=self.row_tokens,
            cache=self.cache,
            samples=self.samples,
        )


class BatchSource:
    """Reads batches of one split.

    Args:
        corpus: the split to read.
        tokenizer: special ids, and the vocabulary of random replacements.
        mask: masking policy and rates.
        seed: keys order, pairs and masks.
        row_tokens: T, tokens of a row.
        cache: folder for plans and token counts.
        samples: how documents become samples.
        build_first: called with the function that builds a plan or token counts before they are
            opened; on several ranks it lets rank 0 build while the others wait.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: LoadedTokenizer,
        mask: MaskOptions,
        *,
        seed: int,
        row_tokens: int,
        cache: Path,
        samples: SampleOptions = SampleOptions(),  # noqa: B008  # frozen
        build_first: BuildFirst = lambda build: None,
    ) -> None:
        self.spec = SourceSpec(
            corpus_path=corpus.path,
            split=corpus.split,
            tokenizer=tokenizer,
            mask=mask,
            seed=seed,
            row_tokens=row_tokens,
            cache=cache,
            samples=samples,
        )
        self._corpus = corpus
        self._build_first = build_first
        masking = open_masking(mask, tokenizer, corpus, cache, build_first)
        self._maker = RowMaker(corpus, tokenizer, masking, row_tokens, mask.bidirectional)
        self._plans: list[EpochIndex] = []
        self._ends: list[int] = []  # number of the first row after each epoch

    def epoch_index(self, epoch: int) -> EpochIndex:
        """Return the plan of an epoch, building plans up to it as needed (all ranks)."""
        while len(self._plans) <= epoch:
            self._open_next_plan()
        return self._plans[epoch]

    def epoch_of(self, row: int) -> int:
        """Return the epoch that holds a row, numbered through all epochs (all ranks)."""
        while not self._ends or self._ends[-1] <= row:
            self._open_next_plan()
        return int(np.searchsorted(self._ends, row, side="right"))

    def step(
        self, step: int, batch_rows: int, rank: int, world_size: int, micro_rows: int
    ) -> list[Batch]:
        """Return this rank's micro-batches of a step, counted from 0, masked at the first rate.

        All ranks call this for the same steps, so that they agree on when a plan is built.
        """
        share = self.share(step * batch_rows, batch_rows, rank, world_size, micro_rows)
        return share.micro_batches()

    def share(
        self,
        first_row: int,
        batch_rows: int,
        rank: int,
        world_size: int,
        micro_rows: int,
        rate: float | None = None,
    ) -> Share:
        """Return this rank's share of the global batch that begins at a row (all ranks).

        Args:
            first_row: of the batch, numbered through all epochs.
            batch_rows: rows of the batch, over all ranks.
            rank, world_size: whose share.
            micro_rows: rows of a micro-batch; ranks take turns by micro-batches.
            rate: of masking; the recipe's first one if left out.
        """
        self.epoch_of(first_row + batch_rows - 1)
        numbers = rows_of_share(first_row, batch_rows, rank, world_size, micro_rows).reshape(-1)
        return _share(self._rows(numbers, rate), self.spec.row_tokens, micro_rows)

    def rows(self, numbers: Int64Array, size: int) -> Batch:
        """Return the batch of some rows, ascending; it is filled up with blank rows to `size`."""
        parts = [self._rows(numbers)] if len(numbers) else []
        parts.append(self._maker.blank(size - len(numbers)))
        (batch,) = _share(concatenate(parts), self.spec.row_tokens, size).micro_batches()
        return batch

    def _rows(self, numbers: Int64Array, rate: float | None = None) -> list[Rows]:
        self.epoch_of(int(numbers[-1]))
        epochs = np.searchsorted(self._ends, numbers, side="right")
        parts = []
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            start = self._ends[epoch - 1] if epoch else 0
            here = numbers[epochs == epoch] - start
            if len(here):
                samples, ids, rows = self._plans[epoch].read(here)
                mask_key = key_of("mask", self.spec.seed, epoch)
                parts.append(
                    self._maker.lay(samples, ids, rows, mask_key, rate or self.spec.mask.rate)
                )
        return concatenate(parts)

    def _open_next_plan(self) -> None:
        spec = self.spec
        key = EpochIndexKey(
            seed=spec.seed,
            epoch=len(self._plans),
            row_tokens=spec.row_tokens,
            pairs=spec.samples.pairs,
            short_share=spec.samples.short_share,
        )
        self._build_first(lambda: open_epoch_index(self._corpus, key, spec.cache))
        self._plans.append(open_epoch_index(self._corpus, key, spec.cache))
        self._ends.append((self._ends[-1] if self._ends else 0) + self._plans[-1].num_rows)


def rows_of_share(
    first_row: int, batch_rows: int, rank: int, world_size: int, micro_rows: int
) -> Int64Array:
    """Return the numbers of a share's rows, [K, rows]: ranks take turns by micro-batches."""
    starts = first_row + np.arange(rank, batch_rows // micro_rows, world_size) * micro_rows
    return starts[:, None] + np.arange(micro_rows)


def _share(directions: list[Rows], row_tokens: int, micro_rows: int) -> Share:
    """Turn rows into tensors, micro-batch by micro-batch; reversed rows come after the others."""
    forward, size = directions[0], micro_rows * row_tokens
    pieces = _Pieces(size, len(forward.input_ids) // size)

    def joined(name: str) -> torch.Tensor:
        return _side_by_side(getattr(rows, name).reshape(-1, size) for rows in directions)

    step = max(_MASKED_STEP, size // _MASKED_STEP_SHARE)
    masked = _next_multiple(pieces.most(forward.masked_positions), step)
    sequences = _roomy(pieces.most(forward.starts), micro_rows)
    pairs = _roomy(pieces.most(forward.cls_positions), micro_rows)
    shifts = [(rows, nth * size) for nth, rows in enumerate(directions)]
    starts = [pieces.places(rows.starts, sequences, size) + shift for rows, shift in shifts]
    end = np.full((pieces.number, 1), size * len(directions))
    return Share(
        **{name: joined(name) for name in _TABLES},
        cu_seqlens=_side_by_side([*starts, end]).int(),
        masked_positions=_side_by_side(
            pieces.places(rows.masked_positions, masked, 0) + by for rows, by in shifts
        ),
        mlm_labels=_side_by_side(
            pieces.of(rows.mlm_labels, rows.masked_positions, masked, IGNORE_INDEX)
            for rows in directions
        ),
        cls_positions=torch.from_numpy(pieces.places(forward.cls_positions, pairs, 0)),
        nsp_labels=torch.from_numpy(
            pieces.of(forward.nsp_labels, forward.cls_positions, pairs, IGNORE_INDEX)
        ),
        row_tokens=row_tokens,
        counts=_count(forward, pieces),
        directions=len(directions),
    )


@dataclass(frozen=True)
class _Pieces:
    """The places of a share, cut into micro-batches of `size` places each."""

    size: int
    number: int

    def count(self, places: Int64Array) -> Int64Array:
        """Return how many of some places lie in each micro-batch, [K]."""
        return np.bincount(places // self.size, minlength=self.number)

    def most(self, places: Int64Array) -> int:
        """Return the largest of these counts."""
        return int(self.count(places).max())

    def of(self, values: Int64Array, places: Int64Array, width: int, fill: int) -> Int64Array:
        """Return the values that belong to the places of each micro-batch, filled up, [K, width].

        Values of one micro-batch must follow one another.
        """
        counts = self.count(places)
        nth = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = np.full((self.number, width), fill)
        table[places // self.size, nth] = values
        return table

    def places(self, places: Int64Array, width: int, fill: int) -> Int64Array:
        """Return the places themselves, counted within their micro-batch, [K, width]."""
        return self.of(places % self.size, places, width, fill)


def _count(rows: Rows, pieces: _Pieces) -> list[dict[str, int]]:
    """Return the counts of each micro-batch."""
    lengths = np.diff(rows.starts, append=len(rows.input_ids))
    real = rows.sample_ids[rows.starts] > 0
    owners = rows.starts[real] // pieces.size
    counts = {
        "masked": pieces.count(rows.masked_positions),
        "samples": np.bincount(owners, minlength=pieces.number),
        # Summed in fp64, which is exact up to 2^53.
        "tokens": np.bincount(owners, lengths[real], minlength=pieces.number),
        "squares": np.bincount(owners, lengths[real] ** 2, minlength=pieces.number),
    }
    return [
        {name: int(numbers[index]) for name, numbers in counts.items()}
        for index in range(pieces.number)
    ]


def _next_multiple(count: int, step: int) -> int:
    return max(1, -(-count // step)) * step


def _roomy(count: int, rows: int) -> int:
    """Return room for `count` sequences: 2, 3, 4, 6, 8, 12, 16, ... times the number of rows.

    Corpora differ in how many samples share a row, from one to dozens. A bound that holds for
    all of them would be mostly empty, and attention kernels reserve memory for each sequence;
    batches of one corpus need one or two of these sizes.
    """
    room, following = 2, 3
    while room * rows < count:
        room, following = following, 2 * room
    return room * rows


def _side_by_side(parts: Iterable[npt.NDArray[Any]]) -> torch.Tensor:
    tables = list(parts)
    return torch.from_numpy(tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1))
