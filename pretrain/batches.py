"""Batches: the rows of a step, as tensors; a pure function of (corpus, seed, step).

Rows are numbered through all epochs: step s takes rows s·R to (s+1)·R. Whatever the number of
ranks and the size of their micro-batches, the union over ranks is therefore the same global
batch, and every rank gets the same number of rows in every step. There is no loader state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.keyed import key_of
from data_prep.plan import Plan, PlanKey, open_plan
from data_prep.shards import Corpus, Int64Array
from data_prep.tokenizer import LoadedTokenizer
from pretrain.config import MaskOptions, SampleOptions
from pretrain.masks.choice import BuildFirst, open_masking
from pretrain.rows import RowMaker, Rows, concatenate

_TABLES = ("input_ids", "token_types", "positions", "sample_ids")


@dataclass(frozen=True)
class Batch:
    """One micro-batch of packed rows. B rows, T tokens a row, M masked tokens, S samples.

    With `mask.bidirectional` the second half of the rows shows each sample reversed: row B/2 + i
    mirrors row i, and masked token M/2 + j is masked token j again. Losses of the two directions
    are added up, so what they are divided by is counted in one of them.
    """

    input_ids: torch.Tensor  # [B, T] int64, [PAD] where no sample lies
    token_types: torch.Tensor  # [B, T] int64, 1 in the second segment
    positions: torch.Tensor  # [B, T] int64, restarts with every sample
    sample_ids: torch.Tensor  # [B, T] int32, 1, 2, ... within a row; 0 is padding
    masked: torch.Tensor  # [M] int64, places in the flattened [B * T]
    mlm_labels: torch.Tensor  # [M] int64
    firsts: torch.Tensor  # [S] int64, places of the [CLS] of samples with two segments
    nsp_labels: torch.Tensor  # [S] int64
    directions: int = 1

    @property
    def counts(self) -> dict[str, int]:
        """What losses are divided by: masked tokens, samples, and real tokens."""
        forward = slice(len(self.input_ids) // self.directions)
        real = self.sample_ids[forward] > 0
        return {
            "masked": len(self.masked) // self.directions,
            "samples": int((real & (self.positions[forward] == 0)).sum()),
            "tokens": int(real.sum()),
        }

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, from pinned memory and without waiting when it is a GPU."""
        if device.type == "cpu":
            return self
        return _changed(self, lambda t: t.pin_memory().to(device, non_blocking=True))


@dataclass(frozen=True, kw_only=True)
class Share:
    """A rank's rows of one step: its micro-batches side by side, as they leave a loader worker.

    The fields are those of `Batch` for K micro-batches; places count within a micro-batch.
    """

    input_ids: torch.Tensor  # [K, B, T]
    token_types: torch.Tensor  # [K, B, T]
    positions: torch.Tensor  # [K, B, T]
    sample_ids: torch.Tensor  # [K, B, T]
    masked: torch.Tensor
    mlm_labels: torch.Tensor
    firsts: torch.Tensor
    nsp_labels: torch.Tensor
    masked_sizes: list[int]  # masked tokens of each micro-batch, [K]
    first_sizes: list[int]  # [CLS] places of each, [K]
    directions: int

    def pin_memory(self) -> "Share":
        """Copy into memory that a GPU reads without the processor's help."""
        return _changed(self, lambda tensor: tensor.pin_memory())

    def micro_batches(self) -> list[Batch]:
        """Return the micro-batches, which are views."""
        parts: dict[str, Sequence[torch.Tensor]] = {name: getattr(self, name) for name in _TABLES}
        sizes = dict.fromkeys(("masked", "mlm_labels"), self.masked_sizes)
        sizes |= dict.fromkeys(("firsts", "nsp_labels"), self.first_sizes)
        parts |= {name: torch.split(getattr(self, name), size) for name, size in sizes.items()}
        return [
            Batch(**{name: part[index] for name, part in parts.items()}, directions=self.directions)
            for index in range(len(self.masked_sizes))
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
        self._plans: list[Plan] = []
        self._ends: list[int] = []  # number of the first row after each epoch

    def plan(self, epoch: int) -> Plan:
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
        starts = first_row + np.arange(rank, batch_rows // micro_rows, world_size) * micro_rows
        numbers = (starts[:, None] + np.arange(micro_rows)).reshape(-1)
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
        key = PlanKey(
            seed=spec.seed,
            epoch=len(self._plans),
            row_tokens=spec.row_tokens,
            pairs=spec.samples.pairs,
            short_share=spec.samples.short_share,
        )
        self._build_first(lambda: open_plan(self._corpus, key, spec.cache))
        self._plans.append(open_plan(self._corpus, key, spec.cache))
        self._ends.append((self._ends[-1] if self._ends else 0) + self._plans[-1].num_rows)


def _share(directions: list[Rows], row_tokens: int, micro_rows: int) -> Share:
    """Turn rows into tensors, micro-batch by micro-batch; reversed rows come after the others."""
    size = micro_rows * row_tokens
    pieces = len(directions[0].input_ids) // size

    def table(name: str) -> torch.Tensor:
        parts = [getattr(rows, name).reshape(pieces, micro_rows, row_tokens) for rows in directions]
        return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))

    owners = np.concatenate([rows.masked // size for rows in directions])
    places = np.concatenate(
        [rows.masked % size + nth * size for nth, rows in enumerate(directions)]
    )
    labels = np.concatenate([rows.mlm_labels for rows in directions])
    if len(directions) > 1:
        by_piece = np.argsort(owners, kind="stable")
        places, labels = places[by_piece], labels[by_piece]
    firsts = directions[0].firsts
    return Share(
        **{name: table(name) for name in _TABLES},
        masked=torch.from_numpy(places),
        mlm_labels=torch.from_numpy(labels),
        firsts=torch.from_numpy(firsts % size),
        nsp_labels=torch.from_numpy(directions[0].nsp_labels),
        masked_sizes=np.bincount(owners, minlength=pieces).tolist(),
        first_sizes=np.bincount(firsts // size, minlength=pieces).tolist(),
        directions=len(directions),
    )


def _changed(batch: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    return replace(batch, **{name: change(tensor) for name, tensor in tensors.items()})
