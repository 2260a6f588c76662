"""Reading a teacher's signal: the stored targets of a batch, in the order of its masked tokens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_prep.corpus.shards import Int64Array
from data_prep.errors import UserError
from data_prep.manifest import find_damage, read_manifest
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import Share
from pretrain.distil.teacher_cache.format import Records, ShardFiles, lines_of, record_type
from pretrain.distil.teacher_cache.key import TeacherCacheOptions, first_difference
from pretrain.distil.teacher_cache.targets import Targets

_OWN_FACTS = ("signal", "rows", "shard_rows", "directions", "files")  # not of the key


class TeacherCacheReader:
    """A complete cache, memory-mapped.

    Attributes:
        options: how its answers were shortened.
        rows: how many it holds, from the first one on.
        temperature: that its distributions were made at.
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
        """Open a cache after comparing it with what it is needed for.

        Args:
            folder: that `TeacherCacheWriter` made.
            key: of the rows that will be asked for, see `cache_key`.
            rows: how many will be asked for, from the first one on.
            contents: compare every byte with the manifest, not sizes alone.

        Raises:
            UserError: when it is not complete, made for anything else, too short or damaged.
        """
        what = "teacher's signal"
        remedy = "write it, or go on writing it, with launch/write_teacher_cache.py"
        manifest = read_manifest(folder, what, remedy)
        theirs = {name: value for name, value in manifest.items() if name not in _OWN_FACTS}
        if difference := first_difference(theirs, key):
            raise UserError(
                f"The teacher's signal {folder} was made for something else ({difference}): "
                "write it again for this recipe, or ask the teacher online."
            )
        if manifest["rows"] < rows:
            raise UserError(
                f"The teacher's signal {folder} holds {manifest['rows']} rows, but {rows} will be "
                "asked for: write more of them, or train fewer steps."
            )
        if damage := find_damage(folder, manifest, contents):
            raise UserError(
                f"The teacher's signal {folder} is damaged ({damage}): remove that shard's .json "
                "and write it again."
            )
        return cls(folder, manifest)

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the files again: maps do not travel.
        return {**vars(self), "_shards": {}}

    def teach(self, share: Share, rows: Int64Array) -> Share:
        """Return a share with the targets of its masked tokens.

        Args:
            share: some micro-batches.
            rows: the numbers of their rows, [K, rows].

        Raises:
            UserError: when other tokens are masked than those that were stored.
        """
        parts = [
            self.targets(batch, own) for batch, own in zip(share.micro_batches(), rows, strict=True)
        ]
        ids, values, rest = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
        return replace(share, cached_ids=ids, cached_values=values, cached_rest=rest)

    def targets(self, batch: Batch, rows: Int64Array) -> Targets:
        """Return the targets of a batch's masked tokens, in their order, on the CPU.

        Args:
            batch: on the CPU.
            rows: the number of each of its rows, ascending; those after the last one are blank.

        Raises:
            UserError: when other tokens are masked than those that were stored.
        """
        asked = (batch.mlm_labels != IGNORE_INDEX).numpy()
        lines, places = lines_of(batch, asked)
        found = np.zeros(len(asked), self._record)
        found[asked] = self._lookup(batch, rows, lines, places)
        return Targets(
            torch.from_numpy(found["ids"].astype(np.int64)),
            torch.from_numpy(found["values"].astype(np.float32)),
            torch.from_numpy(found["rest"].astype(np.float32)),
        )

    def _lookup(
        self, batch: Batch, rows: Int64Array, lines: Int64Array, places: Int64Array
    ) -> Records:
        """Return the records of masked tokens, shard by shard."""
        index, direction = np.divmod(lines, batch.directions)
        owners = rows[index]
        nth = _nth_of_each(lines)
        records = np.zeros(len(lines), self._record)
        for number in np.unique(owners // self._shard_rows):
            here = owners // self._shard_rows == number
            stored, offsets = self._shard(int(number))
            line = (owners[here] - number * self._shard_rows) * batch.directions + direction[here]
            at = offsets[line].astype(np.int64) + nth[here]
            self._refuse_other_masks(np.all(at < offsets[line + 1].astype(np.int64)), rows)
            records[here] = stored[at]
        self._refuse_other_masks(np.array_equal(records["place"], places), rows)
        return records

    def _shard(self, number: int) -> tuple[Records, npt.NDArray[np.uint64]]:
        if number not in self._shards:
            self._shards[number] = ShardFiles(self._folder, number).open(self._record)
        return self._shards[number]

    def _refuse_other_masks(self, same: Any, rows: Int64Array) -> None:
        if not same:
            raise UserError(
                f"Rows {rows[0]} to {rows[-1]} have other masks than those that the teacher's "
                f"signal {self._folder} was written for: write it again with this version."
            )


def _nth_of_each(lines: Int64Array) -> Int64Array:
    """Return how many earlier tokens have the same line."""
    order = np.argsort(lines, kind="stable")
    ordered = lines[order]
    nth = np.empty_like(lines)
    nth[order] = np.arange(len(lines)) - np.searchsorted(ordered, ordered)
    return nth
