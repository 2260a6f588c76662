"""Compressed files, read as a stream without unpacking; a damaged file is a `UserError`.

A file may have several members (gzip), streams (xz, bzip2) or frames (Zstandard); `members.py` and
`zstandard_frames.py` read all of them.
"""

import lzma
import zlib
from pathlib import Path
from typing import Any, Protocol

from data_prep.errors import UserError
from data_prep.readers.storage.magic import LFS_MARK, MAGIC_BYTES, compression_kind
from data_prep.readers.storage.members import Members
from data_prep.readers.storage.remote import RemotePath
from data_prep.readers.storage.zstandard_frames import ZstandardFrames

_KINDS = {
    ".gz": "gzip",
    ".tgz": "gzip",
    ".zst": "Zstandard",
    ".tzst": "Zstandard",
    ".xz": "xz",
    ".txz": "xz",
    ".bz2": "bzip2",
    ".tbz2": "bzip2",
    ".tbz": "bzip2",
}
_SUFFIXES = {"gzip": ".gz", "Zstandard": ".zst", "xz": ".xz", "bzip2": ".bz2"}
_ARCHIVE_SUFFIXES = (".tgz", ".tzst", ".txz", ".tbz2", ".tbz")
_NOT_READ = {
    ".lz4": "lz4",
    ".br": "Brotli",
    ".z": "compress (.Z)",
    ".lzma": "lzma",
    ".lz": "lzip",
    ".lzo": "lzop",
    ".sz": "snappy",
    ".snappy": "snappy",
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
    """Tell by its name whether a file is compressed, in a way that can be read."""
    return name.lower().endswith(tuple(_KINDS))


def uncompressed_name(name: str) -> str:
    """Return a file name without the suffix of its compression; that of a .tgz is .tar."""
    if not is_compressed(name):
        return name
    stem = name[: name.rfind(".")]
    return f"{stem}.tar" if name.lower().endswith(_ARCHIVE_SUFFIXES) else stem


def compression_suffix(head: bytes) -> str | None:
    """Return the suffix for a file with these first bytes.

    None stands for one that is not compressed, or in a way that cannot be read.
    """
    return _SUFFIXES.get(compression_kind(head) or "")


def unread_compression(name: str, head: bytes = b"") -> str | None:
    """Return how a file is compressed, by name or first bytes, if that cannot be read here."""
    kind = compression_kind(head)
    if kind and kind not in _SUFFIXES:
        return kind
    return None if kind else _NOT_READ.get(Path(name).suffix.lower())


def refuse_unread(path: Path | RemotePath, head: bytes) -> None:
    """Refuse a file whose first bytes are those of a compression that cannot be read.

    Raises:
        UserError: that names it.
    """
    if kind := unread_compression(path.name, head):
        raise UserError(
            f"{path} is compressed with {kind}, by its first bytes, which cannot be read: "
            "decompress it, or compress it with gzip, bzip2, xz or zstd."
        )


def open_bytes(path: Path | RemotePath) -> Readable:
    """Open a file for reading bytes, decompressed if its name says so.

    A compressed file can only be read from its beginning.

    Raises:
        UserError: for a file that cannot be opened, or is compressed in a way that cannot be read;
            and while reading, where a compressed file is truncated or damaged, or is none.
    """
    if kind := unread_compression(path.name):
        raise UserError(
            f"{path} is compressed with {kind}, by its name, which cannot be read: decompress it, "
            "or compress it with gzip, bzip2, xz or zstd."
        )
    file = _open_plain(path)
    return _Decompressed(path, file) if is_compressed(path.name) else file


def window_bytes(path: Path | RemotePath) -> int:
    """Return how much of a Zstandard file's text must be in memory to read on, 0 for others."""
    if _KINDS.get(path.suffix.lower()) != "Zstandard":
        return 0
    from zstandard import ZstdError, get_frame_parameters

    file = _open_plain(path)
    head = _read_up_to(file, MAGIC_BYTES)
    file.close()
    try:
        return int(get_frame_parameters(head).window_size)
    except ZstdError:  # of a skippable frame, or damaged, which reading tells
        return 0


def _open_plain(path: Path | RemotePath) -> Readable:
    return path.open_stream() if isinstance(path, RemotePath) else _LocalFile(path)


class _LocalFile:
    """A file of this machine; what the system cannot read is raised as a `UserError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise unreadable(path, error) from error

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise unreadable(self._path, error) from error

    def seek(self, offset: int, /) -> int:
        return self._file.seek(offset)

    def close(self) -> None:
        self._file.close()


def check_size(path: Path, size: int) -> None:
    """Check that a local file still has the size with which it was listed.

    Raises:
        UserError: if not, because documents would be missing, or cut.
    """
    try:
        found = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if found != size:
        raise UserError(
            f"{path} has changed since it was listed, from {size:,} to {found:,} bytes: run the "
            "same command again when nothing writes to it."
        )


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error for a file or folder that the system does not let us read."""
    return UserError(
        f"{path} cannot be read ({error.strerror or error}): correct its permissions, restore it, "
        "or move it out of the input."
    )


class _Decompressed:
    """A compressed file; any damage to it is raised as a `UserError`."""

    def __init__(self, path: Path | RemotePath, file: Readable) -> None:
        self._path = path
        self._file = file
        self._kind = _KINDS[path.suffix.lower()]
        self._stream: Any = None
        self._errors: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, lzma.LZMAError)

    def read(self, size: int, /) -> bytes:
        if self._stream is None:
            self._stream = self._open()
        try:
            block: bytes = self._stream.read(size)
        except self._errors as error:
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

    def _open(self) -> Any:
        head = _read_up_to(self._file, MAGIC_BYTES)
        if head.startswith(LFS_MARK[:MAGIC_BYTES]):
            raise UserError(
                f"{self._path} is a pointer of Git LFS, not the file: run `git lfs pull`."
            )
        if head and (found := compression_kind(head)) != self._kind:
            raise self._wrong_suffix(found)
        if self._kind == "Zstandard":
            # Here, because importing it takes time that most corpora need not spend.
            from zstandard import ZstdError

            self._errors = (*self._errors, ZstdError)
            return ZstandardFrames(_Rejoined(head, self._file))
        return Members(self._file, head, self._kind)

    def _wrong_suffix(self, found: str | None) -> UserError:
        suffix = self._path.suffix
        if found in _SUFFIXES:
            remedy = f"give it a name ending in {_SUFFIXES[str(found)]}"
        elif found:
            remedy = "decompress it, or compress it with gzip, bzip2, xz or zstd"
        else:
            remedy = f"take {suffix} off its name if it is plain, or copy it again"
        article = "an" if self._kind == "xz" else "a"
        what = f"but {found}" if found else "nor compressed in any way that is known"
        return UserError(
            f"{self._path} is not {article} {self._kind} file, by its first bytes, {what}: "
            f"{remedy}."
        )


class _Rejoined:
    """A file of which the first bytes were read already."""

    def __init__(self, head: bytes, file: Readable) -> None:
        self._head = head
        self._file = file

    def read(self, size: int, /) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head or self._file.read(size)


def _read_up_to(file: Readable, size: int) -> bytes:
    data = b""
    while len(data) < size and (block := file.read(size - len(data))):
        data += block
    return data
