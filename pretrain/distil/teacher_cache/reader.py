"""Reading a teacher cache: the soft targets of a batch, in the order of its masked tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_prep.corpus.shards import Int64Array
from data_prep.errors import UserError
from data_prep.manifest import find_damage, read_manifest
from pretrain.data.batch import IGNORE_INDEX, Batch, BatchStack
from pretrain.distil.teacher_cache.format import Records, ShardFiles, line_positions, record_type
from pretrain.distil.teacher_cache.key import TeacherCacheOptions, describe_difference
from pretrain.distil.teacher_cache.targets import Targets

_NOT_IN_KEY = ("signal", "rows", "shard_rows", "directions", "files")  # other manifest keys


class TeacherCacheReader:
    """A complete cache, memory-mapped.

    Attributes:
        options: how its distributions are compressed.
        rows: number of rows, from the first one on.
        temperature: of its distributions.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.options = TeacherCacheOptions(**manifest["signal"])
        self.rows: int = manifest["rows"]
        self.temperature: float = manifest["temperature"]
        self._folder = folder
        self._shard_rows: int = manifest["shard_rows"]
        self._record = record_type(self.options, manifest["vocab_size"])
        self._shards: dict[int, tuple[Records, npt.NDArray[np.uint64]]] = {}

    @classmethod
    def open(
        cls, folder: Path, key: dict[str, Any], rows: int, *, contents: bool = True
    ) -> "TeacherCacheReader":
        """Open a cache after checking that it holds the rows of a key.

        Args:
            folder: that `TeacherCacheWriter` made.
            key: of the rows to be read, see `cache_key`.
            rows: number of rows to be read, from the first one on.
            contents: compare every byte with the manifest, not sizes alone.

        Raises:
            UserError: when it is incomplete, made for anything else, too short or damaged.
        """
        remedy = "write it, or resume writing it, with launch/write_teacher_cache.py"
        manifest = read_manifest(folder, "teacher cache", remedy)
        found = {name: value for name, value in manifest.items() if name not in _NOT_IN_KEY}
        if difference := describe_difference(found, key):
            raise UserError(
                f"The teacher cache {folder} was made for something else ({difference}): write it "
                "again for this recipe, or leave teacher.cache out."
            )
        if manifest["rows"] < rows:
            raise UserError(
                f"The teacher cache {folder} holds {manifest['rows']} rows, but the run reads "
                f"{rows}: write more of them, or train fewer steps."
            )
        if damage := find_damage(folder, manifest, contents):
            raise UserError(
                f"The teacher cache {folder} is damaged ({damage}): remove that shard's .json "
                "and write it again."
            )
        return cls(folder, manifest)

    def __getstate__(self) -> dict[str, Any]:
        # Memory maps cannot be pickled; a loader worker maps the files again.
        return {**vars(self), "_shards": {}}

    def add_targets(self, stack: BatchStack, rows: Int64Array) -> BatchStack:
        """Return a stack of micro-batches with the cached soft targets of its masked tokens.

        Args:
            stack: K micro-batches.
            rows: the numbers of their rows, [K, rows].

        Raises:
            UserError: when other tokens are masked than in the cache.
        """
        parts = [
            self.targets(batch, numbers)
            for batch, numbers in zip(stack.unstack(), rows, strict=True)
        ]
        ids, values, rest = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
        return stack.with_tensors(cached_ids=ids, cached_values=values, cached_rest=rest)

    def targets(self, batch: Batch, rows: Int64Array) -> Targets:
        """Return the soft targets of a batch's masked tokens, in their order, on the CPU.

        Args:
            batch: on the CPU.
            rows: the number of each of its rows, ascending; those after the last one are blank.

        Raises:
            UserError: when other tokens are masked than in the cache.
        """
        is_masked_M = (batch.mlm_labels != IGNORE_INDEX).numpy()
        lines, positions = line_positions(batch, is_masked_M)
        records_M = np.zeros(len(is_masked_M), self._record)
        records_M[is_masked_M] = self._lookup(batch, rows, lines, positions)
        return Targets(
            torch.from_numpy(records_M["ids"].astype(np.int64)),
            torch.from_numpy(records_M["values"].astype(np.float32)),
            torch.from_numpy(records_M["rest"].astype(np.float32)),
        )

    def _lookup(
        self, batch: Batch, rows: Int64Array, lines: Int64Array, positions: Int64Array
    ) -> Records:
        """Return the records of masked tokens, shard by shard."""
        row_index, direction = np.divmod(lines, batch.directions)
        row_numbers = rows[row_index]
        nth = _nth_in_line(lines)
        records = np.zeros(len(lines), self._record)
        for shard in np.unique(row_numbers // self._shard_rows):
            here = row_numbers // self._shard_rows == shard
            shard_records, offsets = self._open_shard(int(shard))
            shard_row = row_numbers[here] - shard * self._shard_rows
            line = shard_row * batch.directions + direction[here]
            index = offsets[line].astype(np.int64) + nth[here]
            self._check_masks(bool(np.all(index < offsets[line + 1].astype(np.int64))), rows)
            records[here] = shard_records[index]
        self._check_masks(np.array_equal(records["position"], positions), rows)
        return records

    def _open_shard(self, number: int) -> tuple[Records, npt.NDArray[np.uint64]]:
        if number not in self._shards:
            self._shards[number] = ShardFiles(self._folder, number).open(self._record)
        return self._shards[number]

    def _check_masks(self, are_equal: bool, rows: Int64Array) -> None:
        if not are_equal:
            raise UserError(
                f"Rows {rows[0]} to {rows[-1]} have other masks than those that the teacher cache "
                f"{self._folder} was written for: write it again with this version."
            )


def _nth_in_line(lines: Int64Array) -> Int64Array:
    """Return the number of earlier tokens in the same line."""
    order = np.argsort(lines, kind="stable")
    ordered = lines[order]
    nth = np.empty_like(lines)
    nth[order] = np.arange(len(lines)) - np.searchsorted(ordered, ordered)
    return nth
