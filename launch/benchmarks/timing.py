"""Time and memory of work on a device: in turns, after warming up, and without its start."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from data_prep.progress import log

_FLUSH_BYTES = 256 * 2**20  # more than the second-level cache of any GPU


class Side(Protocol):
    """One way to do the work; it does a given step of it."""

    name: str

    def step(self, number: int) -> None:
        """Do one step, which may still be under way on the device when this returns."""
        ...


@dataclass
class Turns:
    """What was measured of one side: a figure for each round."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    compilations: int = 0  # after warming up; there should be none


def take_turns(
    makers: Sequence[Callable[[], Side]],
    *,
    rounds: int,
    steps: int,
    warm_up: int,
    device: torch.device,
    count_compilations: Callable[[], int],
) -> list[tuple[Side, Turns]]:
    """Make every side, warm it up, and then run all of them in every round.

    The memory of a side is what it holds, and what it needs on top while it runs; what the
    others hold beside it is not counted.
    """
    sides: list[tuple[Side, Turns, int]] = []
    for make in makers:
        before = _allocated(device)
        side = make()
        log(f"warming up {side.name}")
        for number in range(warm_up):
            side.step(number)
        synchronise(device)
        sides.append((side, Turns(), _allocated(device) - before))
    count_compilations()
    for number in range(rounds):
        for side, turns, held in sides:
            log(f"round {number + 1} of {rounds}: {side.name}")
            _run_turn(side, turns, held, steps, device)
            turns.compilations += count_compilations()
    return [(side, turns) for side, turns, _ in sides]


def _run_turn(side: Side, turns: Turns, held: int, steps: int, device: torch.device) -> None:
    before = _allocated(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    for number in range(steps):
        side.step(number)
    synchronise(device)
    turns.seconds.append(time.perf_counter() - started)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) - before + held
        turns.peak_bytes = max(peak, turns.peak_bytes or 0)


def median_ms(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Return the median time of some work; on a GPU between two events, with a cold cache."""
    for _ in range(3):
        work()
    if device.type != "cuda":
        return statistics.median(_wall_ms(work) for _ in range(repeats))
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)
    pairs = []
    for _ in range(repeats):
        flush.zero_()
        start, end = (_event() for _ in range(2))
        start.record()
        work()
        end.record()
        pairs.append((start, end))
    synchronise(device)
    return float(statistics.median(start.elapsed_time(end) for start, end in pairs))


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int | None:
    """Return what some work allocates at most, beside what is there already; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = _allocated(device)
    work()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def top_operations(work: Callable[[], Any], device: torch.device, rows: int = 20) -> list[Any]:
    """Return where the time of some work goes: operations, calls, ms, and share of all."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        work()
        synchronise(device)
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = [event for event in profile.key_averages() if getattr(event, key) > 0]
    if device.type == "cuda":
        # The kernels alone: operators and annotations have the time of their kernels once more.
        on_gpu = torch._C._autograd.DeviceType.CUDA
        events = [e for e in events if e.device_type == on_gpu and not e.is_user_annotation]
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


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _wall_ms(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)
