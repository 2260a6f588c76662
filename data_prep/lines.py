"""A text file as lines that know where they begin, so that every complaint names a place."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from data_prep.errors import UserError
from data_prep.sources import Slice, Source

_BOM = b"\xef\xbb\xbf"
_READ_BYTES = 1 << 20
# The longest form of one character: a surrogate pair, escaped in JSON.
_MAX_BYTES_PER_CHAR = 12


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file without its line end; `offset` is its first byte."""

    text: str
    offset: int


def open_source(source: Source) -> BinaryIO:
    """Open a file for reading bytes; names that end in `.gz` are decompressed."""
    if source.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(source.path, "rb"))
    return source.path.open("rb")


def read_head(source: Source, size: int) -> bytes:
    """Return the first `size` bytes of a file, without a byte-order mark."""
    with open_source(source) as file:
        return file.read(size).removeprefix(_BOM)


def read_lines(
    piece: Slice, errors: Literal["strict", "replace"], max_chars: int
) -> Iterator[Line]:
    """Yield the lines that begin at or after the start of a slice, up to the end of the file.

    The caller stops when it has what it needs. Offsets count decompressed bytes.

    Raises:
        UserError: for bytes that are not UTF-8 when `errors` is "strict", and for a line that is
            too long to hold a document of `max_chars` characters.
    """
    limit = max_chars * _MAX_BYTES_PER_CHAR + _READ_BYTES
    with open_source(piece.source) as file:
        offset = _skip_to_line(file, piece.start)
        while raw := file.readline(limit):
            if len(raw) == limit:
                raise UserError(
                    f"The line at byte {offset} of {piece.source.path} has more than {limit} "
                    "bytes: break it up, or raise input.max_document_chars."
                )
            yield Line(_decode(raw, offset, piece.source, errors), offset)
            offset += len(raw)


def line_number(source: Source, offset: int) -> int:
    """Return the number, from 1, of the line that holds a byte; reads the file up to there."""
    newlines, left = 0, offset
    with open_source(source) as file:
        while left and (block := file.read(min(left, _READ_BYTES))):
            newlines += block.count(b"\n")
            left -= len(block)
    return newlines + 1


def _skip_to_line(file: BinaryIO, start: int) -> int:
    """Move to the first line that begins at or after `start`, and return its offset."""
    if start == 0:
        return 0
    # One byte earlier, so that a line which begins exactly at `start` is not skipped.
    offset = file.seek(start - 1)
    while block := file.readline(_READ_BYTES):
        offset += len(block)
        if block.endswith(b"\n"):
            break
    return offset


def _decode(raw: bytes, offset: int, source: Source, errors: Literal["strict", "replace"]) -> str:
    if offset == 0 and raw.startswith(_BOM):
        raw, offset = raw[len(_BOM) :], len(_BOM)
    try:
        return raw.decode("utf-8", errors).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{source.path} is not UTF-8: the byte 0x{raw[error.start]:02x} at byte offset "
            f"{offset + error.start} does not belong there; convert the file, or put U+FFFD in "
            "such places with --errors replace."
        ) from error
