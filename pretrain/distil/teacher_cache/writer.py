"""Writing a teacher's signal: a pass over rows, in shards, that goes on where it was stopped.

A cache holds rows 0 to R - 1 of one row length, numbered through all epochs as in batches.py.
Shards are shared out among ranks; each is made from its own rows alone, so a pass may be stopped
and begun again at any number of ranks.
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
from pretrain.distil.teacher_cache.format import Records, ShardFiles, lines_of, record_type
from pretrain.distil.teacher_cache.key import TeacherCacheOptions, first_difference
from pretrain.distil.teacher_cache.targets import Targets, sampled_targets, top_targets

_BEGUN = "begun.json"
_ROWS_COUNTED = 256  # of which the size is foretold
_MOST_PLACES, _MOST_DRAWS = 1 << 15, 1 << 12
_LARGEST = 65504.0  # of float16
Teach = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class Size:
    """What a cache will take."""

    position_bytes: int
    positions: float

    @property
    def total_bytes(self) -> float:
        """Of all shards, without their offsets."""
        return self.position_bytes * self.positions

    def __str__(self) -> str:
        return (
            f"{self.position_bytes} bytes a masked token x about {self.positions:,.0f} = "
            f"{self.total_bytes / 1e6:,.1f} MB"
        )


class TeacherCacheWriter:
    """Asks a teacher for its answers at masked tokens and stores them.

    Args:
        folder: of the cache; made if it is missing.
        key: see `cache_key`.
        options: how answers are shortened.
        source: of the rows, the one that the key is of.
        rows: R, how many are stored, from the first one on.
        shard_rows: rows of a shard.

    Raises:
        UserError: when the folder holds something else, when K is more than the vocabulary, or the
            disk has no room.
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
        """How many the cache has."""
        return math.ceil(self._rows / self._shard_rows)

    def foretell(self) -> Size:
        """Return what the cache will take, by the masks of a few rows spread over all."""
        numbers = np.unique(np.linspace(0, self._rows - 1, _ROWS_COUNTED).astype(np.int64))
        batch = self._source.rows(numbers, len(numbers))
        per_row = batch.counts["masked"] * batch.directions / len(numbers)
        return Size(self._record.itemsize, per_row * self._rows)

    def begin(self) -> None:
        """Say how large the cache will be and claim the folder (one rank, before all others)."""
        size = self.foretell()
        log(f"teacher's signal {self._folder}: {self._rows:,} rows, {size}")
        with clear_disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._refuse_another()
            missing = size.total_bytes * len(self._missing(0, 1)) / self.shards
            if missing > (free := shutil.disk_usage(self._folder).free):
                raise UserError(
                    f"The disk that holds {self._folder} has {free / 1e6:,.1f} MB left, but the "
                    f"teacher's signal needs about {missing / 1e6:,.1f} MB: free some space, lower "
                    "signal.count, or store fewer rows."
                )
            write_json(self._folder / _BEGUN, self._facts)

    def write(self, teach: Teach, micro_rows: int, rank: int = 0, ranks: int = 1) -> None:
        """Write the shards of a rank that are not there yet.

        Args:
            teach: gives the teacher's logits at the masked tokens of a batch, [M, V].
            micro_rows: rows of a batch.
            rank, ranks: whose shards.

        Raises:
            UserError: when an answer of the teacher is not finite, or the disk is full.
        """
        for number in self._missing(rank, ranks):
            records, counts = self._ask(number, teach, micro_rows)
            with clear_disk_errors(self._folder):
                ShardFiles(self._folder, number).write(records, counts)
            log(f"teacher's signal: shard {number + 1} of {self.shards}, {len(records):,} tokens")

    def questions(self, micro_rows: int, rank: int = 0, ranks: int = 1) -> int:
        """Return how often `write` will ask the teacher."""
        return sum(len(self._batches(n, micro_rows)) for n in self._missing(rank, ranks))

    def finish(self) -> dict[str, Any]:
        """Write the manifest, from now on the cache is complete (one rank, after all others).

        Raises:
            UserError: when a shard is missing.
        """
        files: dict[str, Any] = {}
        for number in range(self.shards):
            found = ShardFiles(self._folder, number).facts()
            if found is None:
                raise UserError(
                    f"Shard {number} of the teacher's signal {self._folder} is missing: "
                    "type the same command again to write it."
                )
            files |= found
        manifest = {**self._facts, "files": files}
        write_json(self._folder / MANIFEST, manifest)
        return manifest

    def _missing(self, rank: int, ranks: int) -> list[int]:
        mine = range(rank, self.shards, ranks)
        return [n for n in mine if ShardFiles(self._folder, n).facts() is None]

    def _batches(self, number: int, micro_rows: int) -> list[Int64Array]:
        """Return the rows of each batch of a shard."""
        first = number * self._shard_rows
        rows = np.arange(first, min(first + self._shard_rows, self._rows))
        return [rows[start : start + micro_rows] for start in range(0, len(rows), micro_rows)]

    def _refuse_another(self) -> None:
        path = self._folder / _BEGUN
        if not path.is_file():
            if any(self._folder.iterdir()):
                raise UserError(
                    f"{self._folder} holds something that is no teacher's signal: "
                    "choose another folder."
                )
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): remove its folder.") from error
        if difference := first_difference(found, self._facts):
            raise UserError(
                f"The teacher's signal {self._folder} was begun for something else ({difference}): "
                "choose another folder, or remove this one."
            )

    def _ask(self, number: int, teach: Teach, micro_rows: int) -> tuple[Records, Int64Array]:
        """Return the records of a shard and how many each of its lines has."""
        batches = self._batches(number, micro_rows)
        parts = [self._ask_rows(numbers, teach, micro_rows) for numbers in batches]
        records, counts = zip(*parts, strict=True)
        return np.concatenate(records), np.concatenate(counts)

    def _ask_rows(self, numbers: Int64Array, teach: Teach, size: int) -> tuple[Records, Int64Array]:
        batch = self._source.rows(numbers, size)
        asked = (batch.mlm_labels != IGNORE_INDEX).numpy()
        lines, places = lines_of(batch, asked)
        order = np.argsort(lines, kind="stable")
        logits_MV = teach(batch)[torch.from_numpy(np.flatnonzero(asked)[order])]
        lines, places = lines[order], places[order]
        if not logits_MV.isfinite().all():
            raise UserError(
                f"The teacher's answers to rows {numbers[0]} to {numbers[-1]} are not finite: "
                "check its weights, or compute it in fp32 or bf16."
            )
        line_numbers = numbers[0] * batch.directions + lines
        targets = self._shorten(logits_MV.float() / self._key["temperature"], line_numbers, places)
        counts = np.bincount(lines, minlength=len(numbers) * batch.directions)
        return self._pack(targets, places), counts.astype(np.int64)

    def _shorten(self, logits_MV: torch.Tensor, lines: Int64Array, places: Int64Array) -> Targets:
        options = self._options
        number = getattr(torch, options.number)
        if options.kind == "top_k":
            return top_targets(logits_MV, options.count, number)
        # Keyed on the token and the draw, see data_prep/counter_rng.py.
        tokens = lines * _MOST_PLACES + places
        counters = tokens[:, None] * _MOST_DRAWS + np.arange(options.count)
        draws = uniform(key_of("signal", self._key["seed"]), counters)
        draws_MK = torch.from_numpy(draws).to(logits_MV.device)
        return sampled_targets(logits_MV, draws_MK, options.power, number)

    def _pack(self, targets: Targets, places: Int64Array) -> Records:
        records = np.zeros(len(places), self._record)
        records["place"] = places
        records["ids"] = targets.ids_MK.cpu().numpy()
        records["values"] = targets.values_MK.cpu().numpy()
        records["rest"] = targets.rest_M.cpu().numpy()
        return records


def _check(options: TeacherCacheOptions, vocab_size: int) -> None:
    if options.kind == "top_k" and options.count > vocab_size:
        raise UserError(
            f"signal.count {options.count} is more than the {vocab_size} words of the vocabulary: "
            "lower it."
        )
    if options.count > _MOST_DRAWS:
        raise UserError(f"signal.count {options.count} is above {_MOST_DRAWS}: lower it.")
    # The largest weight is V^(1 - power) / K, where all words are equally likely.
    if options.number == "float16" and vocab_size ** (1 - options.power) / options.count > _LARGEST:
        raise UserError(
            f"signal.power {options.power} gives weights that float16 does not hold: "
            "raise it, or set signal.number=float32."
        )
