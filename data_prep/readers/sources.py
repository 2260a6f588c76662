"""What is read: a source is one input file or dataset, a slice is a part of one.

This file imports nothing of the project: readers, the task cut and the pipeline all build on it.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """One input file, or a dataset; `name` starts at the folder that was given, so it travels."""

    path: Path
    name: str
    size: int
    """Bytes. Of a dataset, which tells only when it is read, `listing.SLICE_BYTES` a shard."""
    corpus: str = "text"
    shards: int = 0
    """In how many parts `datasets` reads a dataset; 0 is a file."""

    def shard_of(self, piece: "Slice") -> int:
        """Return which shard of a dataset a slice stands for."""
        return piece.start // (self.size // self.shards)

    def modified_s(self) -> float:
        """Return when a file was last changed, in seconds since 1970; 0 for a dataset."""
        return 0.0 if self.shards else self.path.stat().st_mtime


@dataclass(frozen=True, slots=True)
class Slice:
    """The bytes [start, stop) of one file; a document belongs to the slice that it begins in."""

    source: Source
    start: int
    stop: int

    def holds(self, offset: int) -> bool:
        """Tell whether a byte, at or after `start`, lies before the end of the slice.

        A compressed file is one slice, so what it holds may lie beyond its size on disk.
        """
        return self.stop == self.source.size or offset < self.stop
