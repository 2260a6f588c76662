"""How long the device spends on a part of a step, found out without waiting for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DeviceTimer:
    """Adds up the time between marks; on a GPU these are events in the stream of its work."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is given to the device within."""
        if not self._on_gpu:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        marks = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        marks[0].record()
        yield
        marks[1].record()
        self._events.append(marks)

    def read_ms(self) -> float:
        """Return the milliseconds since the last call; the device must have been waited for."""
        total = 1000 * self._seconds + sum(a.elapsed_time(b) for a, b in self._events)
        self._events, self._seconds = [], 0.0
        return total
