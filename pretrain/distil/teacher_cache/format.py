"""Shards of a teacher cache: the masked tokens of some rows, as memory-mapped arrays.

    00000.records.bin    a record per masked token, row by row: position, K ids, K values, rest
    00000.offsets.bin    uint64; line i has the records offsets[i] to offsets[i + 1]
    00000.json           sizes and sha256 of both, written last: a shard without it is incomplete

A *line* is one direction of a row: with `mask.bidirectional`, two consecutive lines are a row.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import OFFSET_TYPE, Int64Array, token_type_for
from data_prep.manifest import describe_files, find_damage, write_json
from pretrain.data.batch import Batch
from pretrain.distil.teacher_cache.key import TeacherCacheOptions

Records = npt.NDArray[np.void]


def record_type(options: TeacherCacheOptions, vocab_size: int) -> np.dtype[np.void]:
    """Return the dtype of a record: without padding, little-endian."""
    number = np.dtype(options.number).newbyteorder("<")
    return np.dtype(
        [
            ("position", "<u2"),  # in its row, which has at most 32,768
            ("ids", token_type_for(vocab_size), (options.count,)),
            ("values", number, (options.count,)),
            ("rest", "<f4"),
        ]
    )


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard of a folder."""

    folder: Path
    number: int

    @property
    def names(self) -> list[str]:
        """File names of records and offsets."""
        return [f"{self.number:05d}.{part}.bin" for part in ("records", "offsets")]

    @property
    def marker(self) -> Path:
        """The file that marks the shard as complete."""
        return self.folder / f"{self.number:05d}.json"

    def facts(self) -> dict[str, Any] | None:
        """Return sizes and hashes of a complete shard, or None; contents are not compared."""
        try:
            files: dict[str, Any] = json.loads(self.marker.read_text(encoding="utf-8"))["files"]
            if set(files) != set(self.names) or find_damage(self.folder, {"files": files}, False):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return files

    def write(self, records: Records, counts: Int64Array) -> None:
        """Write the shard and mark it as complete, replacing what an interrupted write left.

        Args:
            records: of all lines, in order.
            counts: records of each line.
        """
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(OFFSET_TYPE)
        for name, array in zip(self.names, (records, offsets), strict=True):
            temporary = self.folder / f"{name}.tmp"
            with temporary.open("wb") as file:
                array.tofile(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / name)
        write_json(self.marker, {"files": describe_files(self.folder, self.names)})

    def open(self, record: np.dtype[np.void]) -> tuple[Records, npt.NDArray[np.uint64]]:
        """Map records and offsets into memory."""
        records_path, offsets_path = (self.folder / name for name in self.names)
        offsets = np.memmap(offsets_path, OFFSET_TYPE, "r")
        if not offsets[-1]:
            return np.zeros(0, record), offsets  # an empty file cannot be mapped
        return np.memmap(records_path, record, "r"), offsets


def line_positions(
    batch: Batch, is_masked_M: npt.NDArray[np.bool_]
) -> tuple[Int64Array, Int64Array]:
    """Return the line of each masked token, counted within the batch, and its position there.

    Args:
        batch: on the CPU.
        is_masked_M: false for the padding of the list of masked tokens.
    """
    masked = batch.masked_positions.numpy()[is_masked_M]
    direction_size = len(batch.input_ids) // batch.directions
    direction, position = np.divmod(masked, direction_size)
    row, position = np.divmod(position, batch.row_tokens)
    return row * batch.directions + direction, position
