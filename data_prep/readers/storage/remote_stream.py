"""A remote file as a stream of bytes: reopened where it stopped when a connection breaks."""

import io
from collections.abc import Callable
from typing import Any

# Opens the file at a byte.
Opener = Callable[[int], Any]
# Makes an attempt, and repeats it while the storage fails.
Retrier = Callable[[Callable[[], bytes]], bytes]


class RemoteStream(io.RawIOBase):
    """A file of remote storage, read in bounded memory and from any byte on.

    Args:
        open_at: opens the file.
        retried: makes an attempt, and repeats it.
        shown: the address, for messages.
        size: bytes; a stream that ends earlier is a broken connection.
    """

    def __init__(self, open_at: Opener, retried: Retrier, shown: str, size: int) -> None:
        super().__init__()
        self._open_at = open_at
        self._retried = retried
        self._shown = shown
        self._size = size
        self._offset = 0
        self._file: Any = None
        self._file_offset = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; no bytes at the end."""
        left = max(self._size - self._offset, 0)
        wanted = left if size < 0 else min(size, left)
        if not wanted:
            return b""
        block = self._retried(lambda: self._attempt(wanted))
        self._offset += len(block)
        self._file_offset += len(block)
        return block

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer as far as one read goes."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a byte; the file is opened there by the next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        """Return the byte at which the next read begins."""
        return self._offset

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read from any byte on."""
        return True

    def close(self) -> None:
        """Close the connection."""
        self._drop()
        super().close()

    def _attempt(self, size: int) -> bytes:
        try:
            if self._file is None or self._file_offset != self._offset:
                self._drop()
                self._file = self._open_at(self._offset)
                self._file_offset = self._offset
            block = bytes(self._file.read(size))
            if not block:
                raise EOFError(f"it ended after {self._offset:,} of {self._size:,} bytes")
        except BaseException:
            self._drop()
            raise
        return block

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
