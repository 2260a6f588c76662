"""A window that moves over the bytes of a source, to find where documents end.

Readers search whole blocks of bytes for line ends and markers and decode what is between them. That
is several times faster than reading line by line, and keeps the exact offset of everything.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from data_prep.errors import UserError
from data_prep.readers.encodings import BOM, encoding_hint, open_source
from data_prep.readers.sources import Source
from data_prep.readers.storage.compression import Readable

BLOCK_BYTES = 1 << 20
_HINT_BYTES = 1 << 16
# A line of more white space than this is text, because it cannot be held until it ends.
_MAX_BEGUN_BYTES = 32 << 20
# A long line is extended by up to this, so that it is not copied once for every block of it.
_MAX_READ_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Delimiter:
    """What ends a document; both patterns begin with a newline.

    `begun` matches what, up to the end of the window, may be the beginning of the delimiter.
    """

    pattern: re.Pattern[bytes]
    begun: re.Pattern[bytes]


class ByteWindow:
    """The bytes of a source from offset `base` on; those before `cursor` may be discarded.

    The reader moves `cursor`, an index into `data`; `grow` keeps the bytes from it on. A byte-order
    mark is skipped.
    """

    def __init__(
        self, source: Source, start: int = 0, errors: Literal["strict", "replace"] = "strict"
    ) -> None:
        self._file: Readable = open_source(source, errors)
        self.base = self._file.seek(start) if start else 0
        self.data = b""
        self.cursor = 0
        self.ended = False
        if start == 0:
            self._skip_bom()

    def __enter__(self) -> "ByteWindow":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @property
    def offset(self) -> int:
        """The position of the cursor in the (decompressed) file, in bytes."""
        return self.base + self.cursor

    def grow(self) -> bool:
        """Read another block, and return whether there was one; indices into `data` change."""
        held = len(self.data) - self.cursor
        block = self._file.read(min(max(BLOCK_BYTES, held), _MAX_READ_BYTES))
        self.data = self.data[self.cursor :] + block
        self.base += self.cursor
        self.cursor = 0
        self.ended = not block
        return not self.ended

    def find(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Return the next match of a pattern that begins with a newline.

        None is returned when the file ends before it, or when the window already holds a block of
        bytes without one, which `until` then yields in pieces.
        """
        seen = 0
        while not (match := pattern.search(self.data, self.cursor + seen)):
            if len(self.data) - self.cursor >= BLOCK_BYTES:
                return None
            # Only the last line can be the beginning of a match.
            seen = max(self.data.rfind(b"\n", self.cursor) - self.cursor, 0)
            if not self.grow():
                return None
        return match

    def until(self, delimiter: Delimiter) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes before the next match, in pieces that split no character or line end.

        The cursor is then where the match begins, or at the end of the file.
        """
        while not (match := self.find(delimiter.pattern)):
            cut = len(self.data) if self.ended else self._safe_cut(delimiter)
            if cut > self.cursor:
                yield self.offset, self.data[self.cursor : cut]
                self.cursor = cut
            if self.ended:
                return
            # At the end of the file the loop runs once more, for the character that was held back.
            self.grow()
        if match.start() > self.cursor:
            yield self.offset, self.data[self.cursor : match.start()].rstrip(b"\r")
            self.cursor = match.start()

    def rest(self) -> Iterator[tuple[int, bytes]]:
        """Yield the rest of the file, in pieces that split no character or line end."""
        while self.grow():
            newline = self.data.rfind(b"\n")
            self.cursor = safe_cut(self.data, 0, newline if newline > 0 else None)
            yield self.base, self.data[: self.cursor]
        yield self.base, self.data

    def lines(self, limit: int) -> Iterator[tuple[int, bytes | None]]:
        """Yield the offset and the bytes of every line, without its newline.

        None is yielded for a line of more than `limit` bytes, which is skipped.
        """
        while True:
            end = self.data.rfind(b"\n", self.cursor)
            offset = self.offset
            if end >= 0:
                block = self.data[self.cursor : end]
                self.cursor = end + 1
                for line in block.split(b"\n"):
                    yield offset, line if len(line) <= limit else None
                    offset += len(line) + 1
            elif len(self.data) - self.cursor > limit:
                self.skip_line()
                yield offset, None
            if not self.grow():
                break
        if self.data:
            yield self.base, self.data if len(self.data) <= limit else None

    def line_end(self, limit: int, skip: int = 0) -> int | None:
        """Return the index at which the line `skip` bytes after the cursor ends, newline included.

        None is returned for more than `limit` bytes; the end of the file ends the last line.
        """
        seen = skip
        while (end := self.data.find(b"\n", self.cursor + seen)) < 0:
            seen = len(self.data) - self.cursor
            if seen > limit:
                return None
            if not self.grow():
                return len(self.data)
        return end + 1 if end + 1 - self.cursor <= limit else None

    def skip_line(self) -> None:
        """Move the cursor past the next newline, at any distance."""
        while (end := self.data.find(b"\n", self.cursor)) < 0:
            self.cursor = len(self.data)
            if not self.grow():
                return
        self.cursor = end + 1

    def _safe_cut(self, delimiter: Delimiter) -> int:
        newline = self.data.rfind(b"\n", self.cursor)
        short = len(self.data) - newline <= _MAX_BEGUN_BYTES
        if newline == self.cursor and short and delimiter.begun.match(self.data, newline):
            return newline
        return safe_cut(self.data, self.cursor, newline if newline > self.cursor else None)

    def _skip_bom(self) -> None:
        while len(self.data) < len(BOM) and self.grow():
            pass
        self.ended = False
        if self.data.startswith(BOM):
            self.cursor = len(BOM)


def safe_cut(data: bytes, begin: int, end: int | None = None) -> int:
    """Return where bytes may be cut, at the newline `end` or near the end of them all.

    The cut splits no character and no line end.
    """
    cut = len(data) if end is None else end
    if end is None:
        # Before the last character of several bytes, which may be incomplete.
        last = range(cut - 1, max(cut - 4, begin - 1), -1)
        cut = next((index for index in last if data[index] >= 0xC0), cut)
    # The carriage returns of a line end stay with its newline.
    for _ in range(2):
        if cut > begin and data[cut - 1] == 0x0D:
            cut -= 1
    return cut


def decode(raw: bytes, offset: int, source: Source, errors: Literal["strict", "replace"]) -> str:
    """Decode bytes as text in which a newline, and nothing else, ends a line.

    Byte-order marks are removed wherever they are, because `cat` leaves them between files.

    Raises:
        UserError: for bytes that are not UTF-8 when `errors` is "strict".
    """
    try:
        text = raw.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise _not_utf8(error, offset, source) from error
    if "\r" in text or "\ufeff" in text:
        return plain_newlines(text.replace("\ufeff", ""))
    return text


def decode_line(
    raw: bytes, offset: int, source: Source, errors: Literal["strict", "replace"]
) -> str:
    """Decode bytes as text, and leave carriage returns in it; otherwise as `decode`."""
    try:
        text = raw.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise _not_utf8(error, offset, source) from error
    return text.replace("\ufeff", "") if "\ufeff" in text else text


def _not_utf8(error: UnicodeDecodeError, offset: int, source: Source) -> UserError:
    raw = error.object
    hint = encoding_hint(read_head(source, min(offset, _HINT_BYTES)) + raw[: error.end], raw)
    return UserError(
        f"{source.path} is not UTF-8: the byte 0x{raw[error.start]:02x} at byte offset "
        f"{offset + error.start} is invalid; {hint}, or replace "
        "such bytes by U+FFFD with --errors replace."
    )


def plain_newlines(text: str) -> str:
    """Return a text whose lines all end in a newline; CR CR LF is CR LF converted twice."""
    if "\r" not in text:
        return text
    return text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def read_head(source: Source, size: int) -> bytes:
    """Return the first `size` bytes of a file, decompressed."""
    file = open_source(source, "replace")
    head = b""
    while len(head) < size and (block := file.read(size - len(head))):
        head += block
    file.close()
    return head


def line_number(source: Source, offset: int) -> int:
    """Return the number, from 1, of the line with a byte; reads the file up to there."""
    file = open_source(source, "replace")
    newlines, left = 0, offset
    while left and (block := file.read(min(left, 1 << 20))):
        newlines += block.count(b"\n")
        left -= len(block)
    file.close()
    return newlines + 1


def line_location(source: Source, offset: int) -> str:
    """Return the line and the file of a byte, for an error message."""
    return f"line {line_number(source, offset)} of {source.path}"
