"""Device time of a part of a step, measured without synchronising."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DeviceTimer:
    """Sums the time of blocks of code; on a GPU between two CUDA events in the stream."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the work that is launched in the block."""
        if not self._on_gpu:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        events[0].record()
        yield
        events[1].record()
        self._events.append(events)

    def read_ms(self) -> float:
        """Return the milliseconds since the last call; the device must be synchronised before."""
        total = 1000 * self._seconds + sum(a.elapsed_time(b) for a, b in self._events)
        self._events, self._seconds = [], 0.0
        return total
