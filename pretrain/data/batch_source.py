"""Batches of one split: a pure function of (corpus, seed, step), without loader state.

Rows are numbered through all epochs: step s takes rows s·R to (s+1)·R. Whatever the number of
ranks and the size of their micro-batches, the union over ranks is therefore the same global
batch, and every rank gets the same number of rows in every step.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.corpus.shards import Corpus, Int64Array
from data_prep.counter_rng import key_of
from data_prep.samples.epoch_index import EpochIndex, EpochIndexKey, open_epoch_index
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.config.run import MaskOptions, SampleOptions
from pretrain.data.batch import Batch, BatchStack
from pretrain.data.collate import collate
from pretrain.data.row_layout import RowMaker
from pretrain.masking.factory import BuildFirst, open_masking
from pretrain.masking.packed_rows import PackedRows, concatenate


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """The arguments of a source, by name: they can be pickled, mapped files cannot."""

    corpus_path: Path
    split: str
    tokenizer: LoadedTokenizer
    mask: MaskOptions
    seed: int
    row_tokens: int
    cache: Path
    samples: SampleOptions

    def open(self) -> "BatchSource":
        """Open the same source in this process, with the indices and counts in the cache.

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
        seed: keys the order of rows, pairs and masks.
        row_tokens: T, tokens of a row.
        cache: folder of epoch indices and token counts.
        samples: how documents become samples.
        build_first: called with the function that builds an epoch index or token counts, before
            they are opened; on several ranks it lets rank 0 build while the others wait.
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
        self._indices: list[EpochIndex] = []
        self._ends: list[int] = []  # number of the first row after each epoch

    def epoch_index(self, epoch: int) -> EpochIndex:
        """Return the index of an epoch, after building those up to it as needed (all ranks)."""
        while len(self._indices) <= epoch:
            self._open_next_index()
        return self._indices[epoch]

    def epoch_of(self, row: int) -> int:
        """Return the epoch that holds a row, numbered through all epochs (all ranks)."""
        while not self._ends or self._ends[-1] <= row:
            self._open_next_index()
        return int(np.searchsorted(self._ends, row, side="right"))

    def step(
        self, step: int, batch_rows: int, rank: int, world_size: int, micro_rows: int
    ) -> list[Batch]:
        """Return this rank's micro-batches of a step, counted from 0, masked at the first rate.

        All ranks call this for the same steps, so that they agree on when an index is built.
        """
        stack = self.stack(step * batch_rows, batch_rows, rank, world_size, micro_rows)
        return stack.unstack()

    def stack(
        self,
        first_row: int,
        batch_rows: int,
        rank: int,
        world_size: int,
        micro_rows: int,
        rate: float | None = None,
    ) -> BatchStack:
        """Return a rank's micro-batches of the global batch that begins at a row (all ranks).

        Args:
            first_row: of the batch, numbered through all epochs.
            batch_rows: rows of the batch, over all ranks.
            rank, world_size: which micro-batches, see `rows_of_rank`.
            micro_rows: rows of a micro-batch.
            rate: of masking; the recipe's first one if left out.
        """
        self.epoch_of(first_row + batch_rows - 1)
        numbers = rows_of_rank(first_row, batch_rows, rank, world_size, micro_rows).reshape(-1)
        return collate(self._read(numbers, rate), self.spec.row_tokens, micro_rows)

    def rows(self, numbers: Int64Array, size: int) -> Batch:
        """Return the batch of some rows, ascending, padded with blank rows to `size` rows."""
        parts = [self._read(numbers)] if len(numbers) else []
        parts.append(self._maker.blank(size - len(numbers)))
        (batch,) = collate(_concatenate(parts), self.spec.row_tokens, size).unstack()
        return batch

    def _read(self, numbers: Int64Array, rate: float | None = None) -> list[PackedRows]:
        """Return the rows of some numbers, ascending, in one or two directions."""
        self.epoch_of(int(numbers[-1]))
        epochs = np.searchsorted(self._ends, numbers, side="right")
        parts = []
        for epoch in np.unique(epochs).tolist():
            start = self._ends[epoch - 1] if epoch else 0
            samples, ids, rows = self._indices[epoch].read(numbers[epochs == epoch] - start)
            mask_key = key_of("mask", self.spec.seed, epoch)
            rate = rate or self.spec.mask.rate
            parts.append(self._maker.make(samples, ids, rows, mask_key, rate))
        return _concatenate(parts)

    def _open_next_index(self) -> None:
        spec = self.spec
        key = EpochIndexKey(
            seed=spec.seed,
            epoch=len(self._indices),
            row_tokens=spec.row_tokens,
            pairs=spec.samples.pairs,
            short_share=spec.samples.short_share,
        )
        self._build_first(lambda: open_epoch_index(self._corpus, key, spec.cache))
        self._indices.append(open_epoch_index(self._corpus, key, spec.cache))
        self._ends.append((self._ends[-1] if self._ends else 0) + self._indices[-1].num_rows)


def rows_of_rank(
    first_row: int, batch_rows: int, rank: int, world_size: int, micro_rows: int
) -> Int64Array:
    """Return the row numbers of a rank's micro-batches, [K, micro_rows].

    Micro-batches are dealt to ranks in turn: rank r takes number r, r + world_size, ...
    """
    starts = first_row + np.arange(rank, batch_rows // micro_rows, world_size) * micro_rows
    return starts[:, None] + np.arange(micro_rows)


def _concatenate(parts: list[list[PackedRows]]) -> list[PackedRows]:
    """Join rows that follow one another, each direction on its own."""
    return [concatenate(direction) for direction in zip(*parts, strict=True)]
