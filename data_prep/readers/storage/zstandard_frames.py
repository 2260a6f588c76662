"""Zstandard files of any number of frames, refused where they end too early.

The decoder of `zstandard` reads windows of any size and takes bounded memory for its output, but
returns no error where a file is truncated. So the frames are followed while they are read
(RFC 8878, section 3.1): each block begins with its size, so little of the file is looked at.
"""

from collections.abc import Generator
from typing import Protocol

# `zstd --long=31`, the largest that the format's tool writes. The window is held in memory.
MAX_WINDOW_BYTES = 1 << 31
_FRAME = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_READ_BYTES = 1 << 17
_RLE_BLOCK = 1


# Yields how many bytes to look at next, which are sent back, or minus how many to skip.
_Steps = Generator[int, bytes, None]


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class ZstandardFrames:
    """The text of a Zstandard file.

    Raises `EOFError` when it ends inside a frame or goes on with other data, and
    `zstandard.ZstdError` for damage to a frame.
    """

    def __init__(self, file: _Source) -> None:
        import zstandard

        self._followed = _FollowedFrames(file)
        decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._reader = decoder.stream_reader(
            self._followed,  # type: ignore[arg-type]
            read_size=_READ_BYTES,
            read_across_frames=True,
        )

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of text; no bytes at the end."""
        block = self._reader.read(size)
        if not block and not self._followed.between_frames:
            raise EOFError("it ends in the middle of a frame")
        return block


class _FollowedFrames:
    """A file whose frames are followed while it is read."""

    def __init__(self, file: _Source) -> None:
        self._file = file
        self._taken = self._offset = 0
        self._steps = self._walk()
        # What the walk asks for: a number of bytes to look at, or to skip if it is negative.
        self._wanted = next(self._steps)
        self._seen = b""
        self.between_frames = True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes of the file."""
        data = self._file.read(size)
        at = 0
        while at < len(data):
            at = self._follow(data, at)
        self._taken += len(data)
        return data

    def _follow(self, data: bytes, at: int) -> int:
        """Take one step of the walk, and return where the next begins."""
        if self._wanted < 0:
            skipped = min(-self._wanted, len(data) - at)
            self._wanted += skipped
            if not self._wanted:
                self._wanted = self._steps.send(b"")
            return at + skipped
        self.between_frames = False
        piece = data[at : at + self._wanted - len(self._seen)]
        self._seen += piece
        if len(self._seen) == self._wanted:
            seen, self._seen = self._seen, b""
            self._offset = self._taken + at + len(piece) - len(seen)
            self._wanted = self._steps.send(seen)
        return at + len(piece)

    def _walk(self) -> _Steps:
        while True:
            magic = int.from_bytes((yield 4), "little")
            if magic & ~0xF == _SKIPPABLE:
                size = int.from_bytes((yield 4), "little")
                if size:
                    yield -size
            elif magic == _FRAME:
                yield from self._walk_frame()
            else:
                at = self._offset
                raise EOFError(
                    f"what follows at byte offset {at} is damaged; `head -c {at}` cuts it off"
                )
            self.between_frames = True

    def _walk_frame(self) -> _Steps:
        descriptor = (yield 1)[0]
        single_segment = descriptor >> 5 & 1
        size_flag = descriptor >> 6
        size_bytes = (single_segment, 2, 4, 8)[size_flag]
        if left := (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3] + size_bytes:
            yield -left
        last = False
        while not last:
            block = int.from_bytes((yield 3), "little")
            last = bool(block & 1)
            if size := 1 if block >> 1 & 3 == _RLE_BLOCK else block >> 3:
                yield -size
        if descriptor >> 2 & 1:
            yield -4  # its checksum
