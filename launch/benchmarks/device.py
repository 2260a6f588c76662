"""Time and memory of work on a device: after warming up, and synchronised at both ends."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data_prep.progress import log
from launch.benchmarks.driver import Run
from pretrain.model.compilation import CompilationCounter

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FLUSH_BYTES = 256 * 2**20  # more than the second-level cache of any GPU
_WARM_UP_STEPS = 3


@dataclass(kw_only=True)
class Trainer:
    """What trains on a device.

    Attributes:
        steps: the micro-batches of its steps; a long round repeats them.
        losses: yields the loss of each micro-batch of a step, given these and its number.
        backward: accumulates the gradients of a loss.
        update: updates the weights; called after the losses of a step.
        teacher_ms: milliseconds of a teacher's forward passes since the last call.
        flops: of a step, from the counts of its batches; None where they are not reported.
    """

    name: str
    steps: Sequence[Sequence[Any]]
    losses: Callable[[Sequence[Any], int], Iterable[torch.Tensor]]
    update: Callable[[], None]
    backward: Callable[[torch.Tensor], Any] = torch.Tensor.backward
    teacher_ms: Callable[[], float] = lambda: 0.0
    flops: Callable[[dict[str, int]], int] | None = None

    def step(self, number: int) -> None:
        """Train on one global batch; the device may still be at work when this returns."""
        for loss in self.losses(self.batches(number), number):
            self.backward(loss)
        self.update()

    def batches(self, number: int) -> Sequence[Any]:
        """Return the micro-batches of a step."""
        return self.steps[number % len(self.steps)]


class DeviceSide:
    """A trainer, made and warmed up; a run is a number of steps.

    Its memory is what the trainer holds and what its steps allocate on top; what the other
    sides hold beside it is not counted.
    """

    def __init__(self, make: Callable[[], Trainer], steps: int, device: torch.device) -> None:
        before = _allocated(device)
        self.trainer = make()
        self._steps, self._device = steps, device
        self._compilations = CompilationCounter()
        log(f"warming up {self.trainer.name}")
        for number in range(_WARM_UP_STEPS):
            self.trainer.step(number)
        synchronise(device)
        self._held_bytes = _allocated(device) - before

    def run(self) -> Run:
        """Take the steps; `result` has the compilations, and the teacher's milliseconds a step."""
        self.trainer.teacher_ms()  # counts from here, as the compilations do
        self._compilations.since_last()
        before, peak = _allocated(self._device), None
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        started = time.perf_counter()
        for number in range(self._steps):
            self.trainer.step(number)
        synchronise(self._device)
        seconds = time.perf_counter() - started
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device) - before + self._held_bytes
        result = {
            "compilations": self._compilations.since_last(),
            "teacher_ms": self.trainer.teacher_ms() / self._steps,
        }
        return Run(seconds=seconds, peak_bytes=peak, result=result)


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def median_ms(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Return the median time of a call; on a GPU between two events, with a cold cache."""
    for _ in range(3):
        work()
    if device.type != "cuda":
        return statistics.median(_wall_ms(work) for _ in range(repeats))
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)
    pairs = []
    for _ in range(repeats):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        pairs.append((start, end))
    synchronise(device)
    return float(statistics.median(start.elapsed_time(end) for start, end in pairs))


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int | None:
    """Return the most that a call allocates beyond what is there already; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = _allocated(device)
    work()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


def synchronise(device: torch.device) -> None:
    """Wait for all queued work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def top_operations(work: Callable[[], Any], device: torch.device, rows: int = 20) -> list[Any]:
    """Return the operations that take most time of a call: calls, ms, and share of all."""
    on_gpu = device.type == "cuda"
    activities = torch.profiler.ProfilerActivity
    chosen = [activities.CPU, activities.CUDA] if on_gpu else [activities.CPU]
    with torch.profiler.profile(activities=chosen) as profile:
        work()
        synchronise(device)
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [event for event in profile.key_averages() if getattr(event, key) > 0]
    if on_gpu:
        # The kernels alone: operators and annotations repeat the time of their kernels.
        gpu = torch._C._autograd.DeviceType.CUDA
        events = [e for e in events if e.device_type == gpu and not e.is_user_annotation]
    whole = sum(getattr(event, key) for event in events)
    events.sort(key=lambda event: getattr(event, key), reverse=True)
    return [
        {
            "name": event.key[:120],
            "calls": event.count,
            "ms": round(getattr(event, key) / 1000, 3),
            "share": round(getattr(event, key) / whole, 4),
        }
        for event in events[:rows]
    ]


def matmul_flops(dtype: torch.dtype, device: torch.device, size: int) -> float:
    """Return the operations a second of a large matrix product on random numbers.

    Random, because zeros draw less power and run faster than data does.
    """
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / (median_ms(lambda: a @ b, 10, device) / 1000)


def copy_bandwidth(device: torch.device, size_bytes: int) -> float:
    """Return the bytes a second that a large copy reads and writes."""
    source = torch.randn(size_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size_bytes / (median_ms(lambda: target.copy_(source), 10, device) / 1000)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _wall_ms(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)
