"""The members of gzip, xz and bzip2 files, one after another.

Parallel compressors and `cat` write several members (gzip) or streams (xz, bzip2) into one file.
All of them are read, or the file is refused: what follows the last of them and is no padding of
its format is an error, also where the tool of the format only warns (gzip, bzip2), because a
damaged member looks the same.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from data_prep.readers.storage.magic import MAGIC_BYTES, compression_kind

_READ_BYTES = 1 << 18


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Decoder(Protocol):
    """What decompresses one member, as the classes of `bz2` and `lzma` do."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Members:
    """The members of a gzip file, or the streams of an xz or bzip2 file, one after another.

    Zeros between and behind them are padding: of tapes in gzip and bzip2 files, and of the format
    itself in xz files, where their number is a multiple of four.

    Args:
        file: compressed, read up to and with `head`.
        head: its first bytes.
        kind: gzip, xz or bzip2.
    """

    def __init__(self, file: _Source, head: bytes, kind: str) -> None:
        makers: dict[str, Callable[[], _Decoder]] = {
            "gzip": _GzipMember,
            "xz": _xz_stream,
            "bzip2": bz2.BZ2Decompressor,
        }
        self._file = file
        self._kind = kind
        self._make = makers[kind]
        self._held = head
        self._taken = len(head)
        self._member: _Decoder | None = None

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of text; none at the end.

        Raises:
            EOFError: where a member is cut off, or followed by what is none; errors of `zlib`,
                `lzma` and `bz2` for one that is damaged.
        """
        while self._member is not None or self._begin():
            assert self._member is not None
            block = self._member.decompress(self._input(), size)
            if self._member.eof:
                self._held, self._member = self._member.unused_data, None
            if block:
                return block
        return b""

    def _input(self) -> bytes:
        """Return the next compressed bytes for a member that needs some."""
        assert self._member is not None
        held, self._held = self._held, b""
        if held or not self._member.needs_input:
            return held
        if not (held := self._next_block()):
            raise EOFError("it ends in the middle of the data")
        return held

    def _begin(self) -> bool:
        """Begin the next member, and return whether there is one."""
        zeros = 0
        while not (rest := self._held.lstrip(b"\0")):
            zeros += len(self._held)
            if not (block := self._next_block()):
                self._held = b""
                self._check_padding(zeros)
                return False
            self._held = block
        zeros += len(self._held) - len(rest)
        self._check_padding(zeros)
        while len(rest) < MAGIC_BYTES and (block := self._next_block()):
            rest += block
        if compression_kind(rest) != self._kind:
            at = self._taken - len(rest)
            raise EOFError(
                f"what follows at byte offset {at} is damaged; `head -c {at}` cuts it off"
            )
        self._held, self._member = rest, self._make()
        return True

    def _check_padding(self, zeros: int) -> None:
        if self._kind == "xz" and zeros % 4:
            raise EOFError(f"{zeros} zero bytes follow a stream, and padding is in fours")

    def _next_block(self) -> bytes:
        block = self._file.read(_READ_BYTES)
        self._taken += len(block)
        return block


def _xz_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


class _GzipMember:
    """One member of a gzip file, with the checks of its checksum and length."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._held = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        block = self._inflate.decompress(self._held + data, max_length)
        self._held = self._inflate.unconsumed_tail
        # A full block may leave text in the decoder though it has taken all of its input.
        self.needs_input = not self._held and len(block) < max_length
        return block
