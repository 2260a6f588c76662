"""A shard of a teacher's signal: the masked tokens of some rows, as arrays that are memory-mapped.

    00000.records.bin    one record a masked token, row by row: its place, K words, K numbers, rest
    00000.offsets.bin    uint64; line i has the records offsets[i] to offsets[i + 1]
    00000.json           written last: sizes and sha256 of both. A shard without it does not exist.

A *line* is one direction of a row (`mask.bidirectional` shows each row twice, one after the other).
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
    """Return the type of a record; without gaps, little-endian."""
    number = np.dtype(options.number).newbyteorder("<")
    return np.dtype(
        [
            ("place", "<u2"),  # in its row, which has at most 32,768
            ("ids", token_type_for(vocab_size), (options.count,)),
            ("values", number, (options.count,)),
            ("rest", "<f4"),
        ]
    )


@dataclass(frozen=True)
class ShardFiles:
    """Where the files of a shard are."""

    folder: Path
    number: int

    @property
    def names(self) -> list[str]:
        """Names of records and offsets."""
        return [f"{self.number:05d}.{what}.bin" for what in ("records", "offsets")]

    @property
    def marker(self) -> Path:
        """The file that says that the shard is whole."""
        return self.folder / f"{self.number:05d}.json"

    def facts(self) -> dict[str, Any] | None:
        """Return sizes and hashes of a whole shard, or None; contents are not compared."""
        try:
            files: dict[str, Any] = json.loads(self.marker.read_text(encoding="utf-8"))["files"]
            whole = set(files) == set(self.names)
            return (
                files if whole and not find_damage(self.folder, {"files": files}, False) else None
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, records: Records, counts: Int64Array) -> None:
        """Write the shard whole; whatever a killed writer left of it is replaced.

        Args:
            records: of all lines, in order.
            counts: how many each line has.
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
        """Map records and offsets."""
        paths = [self.folder / name for name in self.names]
        offsets = np.memmap(paths[1], OFFSET_TYPE, "r")
        if not offsets[-1]:
            return np.zeros(0, record), offsets  # an empty file cannot be mapped
        return np.memmap(paths[0], record, "r"), offsets


def lines_of(batch: Batch, asked: npt.NDArray[np.bool_]) -> tuple[Int64Array, Int64Array]:
    """Return the line of each asked masked token, counted within the batch, and its place there."""
    masked = batch.masked_positions.numpy()[asked]
    half = len(batch.input_ids) // batch.directions
    direction, place = np.divmod(masked, half)
    row, place = np.divmod(place, batch.row_tokens)
    return row * batch.directions + direction, place
