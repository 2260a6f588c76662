"""Progress of a long job: a bar on a terminal, plain dated lines in a log file."""

import sys
import time

from tqdm import tqdm

_LOG_EVERY_S = 15.0


def log(message: str) -> None:
    """Print one dated line on stderr, so that stdout stays free for results."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {message}", file=sys.stderr, flush=True)


class Progress:
    """Counts input bytes, documents and tokens while a corpus is built."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._bytes = self._documents = self._tokens = self._dropped = 0
        self._started = self._logged = time.monotonic()
        self._bar: tqdm[None] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_bytes, unit="B", unit_scale=True, desc="prepare")

    def add(self, size: int, documents: int, tokens: int, dropped: int = 0) -> None:
        """Count finished work: input bytes, documents and tokens written, and what was dropped."""
        self._bytes += size
        self._documents += documents
        self._tokens += tokens
        self._dropped += dropped
        if self._bar is not None:
            self._bar.update(size)
            self._bar.set_postfix_str(
                f"{self._documents:,} documents, {self._dropped:,} dropped, "
                f"{self._speed():,.0f} tokens/s"
            )
        elif time.monotonic() - self._logged >= _LOG_EVERY_S:
            self._logged = time.monotonic()
            log(self._line())

    def summary(self) -> str:
        """Return the counts and the speed, in one line."""
        seconds = time.monotonic() - self._started
        return (
            f"{self._documents:,} documents, {self._tokens:,} tokens in {seconds:.1f} s "
            f"({self._speed():,.0f} tokens/s)"
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _line(self) -> str:
        seconds = time.monotonic() - self._started
        left_s = seconds * (self._total_bytes - self._bytes) / max(self._bytes, 1)
        return (
            f"{self._bytes / max(self._total_bytes, 1):4.0%}  {self._documents:,} documents  "
            f"{self._dropped:,} dropped  {self._speed():,.0f} tokens/s  about {left_s:,.0f} s left"
        )

    def _speed(self) -> float:
        return self._tokens / max(time.monotonic() - self._started, 1e-9)
