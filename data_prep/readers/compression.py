"""Compressed files, read as a stream without unpacking; a damaged file is a `UserError`."""

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
    """The methods of a binary file that readers need."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; no bytes at the end."""

    def seek(self, offset: int, /) -> int:
        """Move to a byte and return its offset."""

    def close(self) -> None:
        """Close the file."""


def is_compressed(name: str) -> bool:
    """Tell by its name whether a file is compressed."""
    return name.endswith(tuple(_KINDS))


def uncompressed_name(name: str) -> str:
    """Return a file name without the suffix of its compression."""
    return name[: name.rfind(".")] if is_compressed(name) else name


def compression_suffix(head: bytes) -> str | None:
    """Return the suffix for a file with these first bytes, or None if it is not compressed."""
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), None)


def open_bytes(path: Path) -> Readable:
    """Open a file for reading bytes, decompressed if its name has a suffix of compression.

    A compressed file can only be read from its beginning. Reading raises `UserError` where such a
    file is truncated or damaged.
    """
    if not is_compressed(path.name):
        return path.open("rb", buffering=0)
    return _Decompressed(path)


class _Decompressed:
    """A compressed file; any damage to it is raised as a `UserError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kind = _KINDS[path.suffix]
        self._file = _open(path)

    def read(self, size: int, /) -> bytes:
        try:
            block: bytes = self._file.read(size)
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            # Errors of the disk have an error number, errors of the data have none.
            if getattr(error, "errno", None):
                raise
            problem = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"{self._path} is not a complete {self._kind} file ({problem}): copy it again or "
                "remove it."
            ) from error
        return block

    def seek(self, offset: int, /) -> int:
        raise ValueError(f"{self._path} is compressed and read from its beginning")

    def close(self) -> None:
        self._file.close()


def _open(path: Path) -> Any:
    if path.suffix == ".zst":
        # Arrow's, because the reader of `zstandard` reports no error for a truncated file.
        import pyarrow as pa

        return pa.input_stream(str(path), compression="zstd")
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return lzma.open(path, "rb") if path.suffix == ".xz" else bz2.open(path, "rb")
