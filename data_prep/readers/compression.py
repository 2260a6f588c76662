"""Compressed files, read as a stream: nothing is unpacked to disk, and damage has one sentence."""

import bz2
import gzip
import lzma
import zlib
from pathlib import Path
from typing import Any, Protocol

from data_prep.errors import UserError

_KINDS = {".gz": "gzip", ".zst": "Zstandard", ".xz": "xz", ".bz2": "bzip2"}
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\xfd7zXZ\x00": ".xz",
    b"BZh": ".bz2",
}


class Readable(Protocol):
    """As much of a binary file as readers need."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, and none at the end."""

    def seek(self, offset: int, /) -> int:
        """Move to a byte and return its offset."""

    def close(self) -> None:
        """Give the file back."""


def is_compressed(name: str) -> bool:
    """Tell by its name whether a file is decompressed while it is read."""
    return name.endswith(tuple(_KINDS))


def uncompressed_name(name: str) -> str:
    """Return a file name without the suffix of its compression."""
    return name[: name.rfind(".")] if is_compressed(name) else name


def compression_suffix(head: bytes) -> str | None:
    """Return the suffix that a file with these first bytes ought to have, if it is compressed."""
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), None)


def open_bytes(path: Path) -> Readable:
    """Open a file for reading bytes, decompressed if its name says so.

    A compressed one is read from its beginning only. Reading raises `UserError` where such a file
    is cut off or damaged.
    """
    if not is_compressed(path.name):
        return path.open("rb", buffering=0)
    return _Decompressed(path)


class _Decompressed:
    """A compressed file whose every way of being broken is a `UserError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kind = _KINDS[path.suffix]
        self._file = _open(path)

    def read(self, size: int, /) -> bytes:
        try:
            block: bytes = self._file.read(size)
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            # An error number comes from the disk; what the data are to blame for has none.
            if getattr(error, "errno", None):
                raise
            problem = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"{self._path} is not a whole {self._kind} file ({problem}): copy it again or "
                "remove it."
            ) from error
        return block

    def seek(self, offset: int, /) -> int:
        raise ValueError(f"{self._path} is compressed and read from its beginning")

    def close(self) -> None:
        self._file.close()


def _open(path: Path) -> Any:
    if path.suffix == ".zst":
        # Arrow's, because the reader of `zstandard` takes a file that is cut off for a whole one.
        import pyarrow as pa

        return pa.input_stream(str(path), compression="zstd")
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return lzma.open(path, "rb") if path.suffix == ".xz" else bz2.open(path, "rb")
