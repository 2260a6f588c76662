"""Sources and slices: a source is one input file or dataset, a slice is a part of one.

This file imports no reader, because readers, listing and pipeline all depend on it.
"""

from dataclasses import dataclass
from pathlib import Path

from data_prep.readers.storage.remote import RemotePath


@dataclass(frozen=True, slots=True)
class Source:
    """One input file, or a dataset.

    Attributes:
        path: the file, or the name of the dataset.
        name: the path from the input folder on, the same on every machine.
        size: bytes. A dataset has an unknown size: `listing.SLICE_BYTES` for each of its shards.
        corpus: which of the recipe's inputs it belongs to.
        shards: number of parts in which `datasets` reads a dataset; 0 for a file.
        encoding: how a file is decoded; `formats.format_of` finds it.
        cr_lines: whether a carriage return alone ends a line.
    """

    path: Path | RemotePath
    name: str
    size: int
    corpus: str = "text"
    shards: int = 0
    encoding: str = "utf-8"
    cr_lines: bool = False

    def shard_of(self, piece: "Slice") -> int:
        """Return the index of the shard that a slice of a dataset represents."""
        return piece.start // (self.size // self.shards)

    def modified_s(self) -> float:
        """Return when a local file was last changed, in seconds since 1970; 0 for others."""
        if self.shards or isinstance(self.path, RemotePath):
            return 0.0
        return self.path.stat().st_mtime

    @property
    def identity(self) -> str:
        """The checksum, version or date of a remote file, empty if there is none."""
        return self.path.identity if isinstance(self.path, RemotePath) else ""

    def facts(self) -> dict[str, str | int]:
        """Return what the manifest of a corpus says of the source."""
        facts: dict[str, str | int] = {"path": self.name, "bytes": self.size}
        return {**facts, "identity": self.identity} if self.identity else facts


@dataclass(frozen=True, slots=True)
class Slice:
    """The bytes [start, stop) of one file; a document belongs to the slice that it begins in."""

    source: Source
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stop - self.start

    def holds(self, offset: int) -> bool:
        """Tell whether a byte at or after `start` is before the end of the slice.

        A compressed file is one slice, whose offsets may exceed its size on disk.
        """
        return self.stop == self.source.size or offset < self.stop
