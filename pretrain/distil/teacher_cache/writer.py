"""Writing a teacher cache: a pass over rows, in shards, that resumes where it was interrupted.

A cache holds rows 0 to R - 1 of one row length, numbered through all epochs as in batch_source.py.
Shards are distributed over the ranks. Each is made from its own rows alone, so a pass may be
resumed at any number of ranks.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import key_of, uniform
from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from data_prep.manifest import MANIFEST, write_json
from data_prep.progress import log
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distil.teacher_cache.format import Records, ShardFiles, line_positions, record_type
from pretrain.distil.teacher_cache.key import TeacherCacheOptions, describe_difference
from pretrain.distil.teacher_cache.targets import Targets, sampled_targets, top_k_targets

_BEGUN = "begun.json"
_ROWS_COUNTED = 256  # for the size estimate
_MAX_POSITIONS, _MAX_DRAWS = 1 << 15, 1 << 12  # of a line, of a token: strides of the counters
_FLOAT16_MAX = 65504.0
ComputeLogits = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class Size:
    """The estimated size of a cache."""

    record_bytes: int
    masked_tokens: float

    @property
    def total_bytes(self) -> float:
        """Bytes of all shards, without their offsets."""
        return self.record_bytes * self.masked_tokens

    def __str__(self) -> str:
        return (
            f"{self.record_bytes} bytes a masked token x about {self.masked_tokens:,.0f} = "
            f"{self.total_bytes / 1e6:,.1f} MB"
        )


class TeacherCacheWriter:
    """Computes and stores the teacher's soft targets at masked tokens.

    Args:
        folder: of the cache; made if it is missing.
        key: of the source, see `cache_key`.
        options: how distributions are compressed.
        source: of rows and masks.
        rows: R, number of rows to store, from the first one on.
        shard_rows: rows of a shard.

    Raises:
        UserError: when K is more than the vocabulary or the limit, or float16 cannot hold the
            weights.
    """

    def __init__(
        self,
        folder: Path,
        key: dict[str, Any],
        options: TeacherCacheOptions,
        source: BatchSource,
        rows: int,
        shard_rows: int = 4096,
    ) -> None:
        _check(options, key["vocab_size"])
        self._folder, self._key, self._options, self._source = folder, key, options, source
        self._rows, self._shard_rows = rows, shard_rows
        self._record = record_type(options, key["vocab_size"])
        self._facts = {
            **key,
            "signal": options.model_dump(mode="json"),
            "rows": rows,
            "shard_rows": shard_rows,
            "directions": 2 if source.spec.mask.bidirectional else 1,
        }
        source.epoch_of(rows - 1)  # builds all plans that are needed

    @property
    def shards(self) -> int:
        """Number of shards of the cache."""
        return math.ceil(self._rows / self._shard_rows)

    def estimate_size(self) -> Size:
        """Return the size of the cache, estimated from the masks of a few evenly spaced rows."""
        numbers = np.unique(np.linspace(0, self._rows - 1, _ROWS_COUNTED).astype(np.int64))
        batch = self._source.rows(numbers, len(numbers))
        masked_per_row = batch.counts["masked"] * batch.directions / len(numbers)
        return Size(self._record.itemsize, masked_per_row * self._rows)

    def begin(self) -> None:
        """Log the estimated size and claim the folder (one rank, before all others).

        Raises:
            UserError: when the folder holds something else, or the disk has too little space.
        """
        size = self.estimate_size()
        log(f"teacher cache {self._folder}: {self._rows:,} rows, {size}")
        with clear_disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._check_folder()
            self._check_space(size)
            write_json(self._folder / _BEGUN, self._facts)

    def write(
        self, compute_logits: ComputeLogits, micro_rows: int, rank: int = 0, ranks: int = 1
    ) -> None:
        """Write the missing shards of a rank.

        Args:
            compute_logits: returns the teacher's logits at the masked tokens of a batch, [M, V].
            micro_rows: rows of a batch.
            rank, ranks: rank and world size.

        Raises:
            UserError: when logits are not finite, or the disk is full.
        """
        for number in self._missing_shards(rank, ranks):
            records, counts = self._compute_shard(number, compute_logits, micro_rows)
            with clear_disk_errors(self._folder):
                ShardFiles(self._folder, number).write(records, counts)
            log(f"teacher cache: shard {number + 1} of {self.shards}, {len(records):,} tokens")

    def count_forward_passes(self, micro_rows: int, rank: int = 0, ranks: int = 1) -> int:
        """Return the number of teacher forward passes that `write` needs."""
        return sum(len(self._batches(n, micro_rows)) for n in self._missing_shards(rank, ranks))

    def finish(self) -> dict[str, Any]:
        """Write the manifest, which completes the cache (one rank, after all others).

        Raises:
            UserError: when a shard is missing.
        """
        files: dict[str, Any] = {}
        for number in range(self.shards):
            found = ShardFiles(self._folder, number).facts()
            if found is None:
                raise UserError(
                    f"Shard {number} of the teacher cache {self._folder} is missing: "
                    "run the same command again to write it."
                )
            files |= found
        manifest = {**self._facts, "files": files}
        write_json(self._folder / MANIFEST, manifest)
        return manifest

    def _missing_shards(self, rank: int, ranks: int) -> list[int]:
        own = range(rank, self.shards, ranks)
        return [n for n in own if ShardFiles(self._folder, n).facts() is None]

    def _batches(self, number: int, micro_rows: int) -> list[Int64Array]:
        """Return the row numbers of each batch of a shard."""
        first = number * self._shard_rows
        rows = np.arange(first, min(first + self._shard_rows, self._rows))
        return [rows[start : start + micro_rows] for start in range(0, len(rows), micro_rows)]

    def _check_folder(self) -> None:
        """Raise UserError if the folder holds anything but an interrupted pass of the same key."""
        path = self._folder / _BEGUN
        if not path.is_file():
            if any(self._folder.iterdir()):
                raise UserError(
                    f"{self._folder} holds something that is no teacher cache: "
                    "choose another folder."
                )
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): remove its folder.") from error
        if difference := describe_difference(found, self._facts):
            raise UserError(
                f"The teacher cache {self._folder} was begun for something else ({difference}): "
                "choose another folder, or remove this one."
            )

    def _check_space(self, size: Size) -> None:
        needed = size.total_bytes * len(self._missing_shards(0, 1)) / self.shards
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"The disk that holds {self._folder} has {free / 1e6:,.1f} MB left, but the "
                f"teacher cache needs about {needed / 1e6:,.1f} MB: free some space, lower "
                "teacher_cache.count, or store fewer rows."
            )

    def _compute_shard(
        self, number: int, compute_logits: ComputeLogits, micro_rows: int
    ) -> tuple[Records, Int64Array]:
        """Return the records of a shard and the number of records of each of its lines."""
        batches = self._batches(number, micro_rows)
        parts = [self._compute_rows(numbers, compute_logits, micro_rows) for numbers in batches]
        records, counts = zip(*parts, strict=True)
        return np.concatenate(records), np.concatenate(counts)

    def _compute_rows(
        self, numbers: Int64Array, compute_logits: ComputeLogits, size: int
    ) -> tuple[Records, Int64Array]:
        batch = self._source.rows(numbers, size)
        is_masked_M = (batch.mlm_labels != IGNORE_INDEX).numpy()
        lines, positions = line_positions(batch, is_masked_M)
        order = np.argsort(lines, kind="stable")
        lines, positions = lines[order], positions[order]
        logits_MV = compute_logits(batch)[torch.from_numpy(np.flatnonzero(is_masked_M)[order])]
        if not logits_MV.isfinite().all():
            raise UserError(
                f"The teacher's logits of rows {numbers[0]} to {numbers[-1]} are not finite: "
                "check its weights, or compute it in fp32 or bf16."
            )
        line_numbers = numbers[0] * batch.directions + lines
        logits_MV = logits_MV.float() / self._key["temperature"]
        targets = self._compress(logits_MV, line_numbers, positions)
        counts = np.bincount(lines, minlength=len(numbers) * batch.directions)
        return self._to_records(targets, positions), counts.astype(np.int64)

    def _compress(
        self, logits_MV: torch.Tensor, lines: Int64Array, positions: Int64Array
    ) -> Targets:
        options = self._options
        number = getattr(torch, options.number)
        if options.kind == "top_k":
            return top_k_targets(logits_MV, options.count, number)
        # Keyed on the token and the draw, see data_prep/counter_rng.py.
        tokens = lines * _MAX_POSITIONS + positions
        counters = tokens[:, None] * _MAX_DRAWS + np.arange(options.count)
        draws = uniform(key_of("signal", self._key["seed"]), counters)
        draws_MK = torch.from_numpy(draws).to(logits_MV.device)
        return sampled_targets(logits_MV, draws_MK, options.power, number)

    def _to_records(self, targets: Targets, positions: Int64Array) -> Records:
        records = np.zeros(len(positions), self._record)
        records["position"] = positions
        records["ids"] = targets.ids_MK.cpu().numpy()
        records["values"] = targets.values_MK.cpu().numpy()
        records["rest"] = targets.rest_M.cpu().numpy()
        return records


def _check(options: TeacherCacheOptions, vocab_size: int) -> None:
    if options.kind == "top_k" and options.count > vocab_size:
        raise UserError(
            f"teacher_cache.count {options.count} is more than the {vocab_size} tokens of the "
            "vocabulary: lower it."
        )
    if options.count > _MAX_DRAWS:
        raise UserError(f"teacher_cache.count {options.count} is above {_MAX_DRAWS}: lower it.")
    # The largest weight is V^(1 - power) / K, where all tokens are equally probable.
    largest = vocab_size ** (1 - options.power) / options.count
    if options.number == "float16" and largest > _FLOAT16_MAX:
        raise UserError(
            f"teacher_cache.power {options.power} gives weights beyond the range of float16: "
            "raise it, or set teacher_cache.number=float32."
        )
