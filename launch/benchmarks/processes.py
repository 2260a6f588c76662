"""Sides of a comparison: each a fresh process, timed from outside, its memory watched.

The memory of a side is that of its process and all its children at the same moment, so work that
moves into workers is not lost. On Linux it is the proportional set size (PSS): a page that several
processes share counts once. Elsewhere it is the resident set size (RSS), which counts it for each.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from data_prep.errors import UserError
from data_prep.progress import log

MEMORY_KIND = "PSS" if sys.platform == "linux" else "RSS"
# Linux walks the page tables of a process for its PSS, which holds up the process meanwhile.
_SAMPLE_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Side:
    """What to run: a module's `main`, with the side's name and a job file, in an own folder."""

    name: str
    module: str
    job: Mapping[str, Any]
    variables: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a side. `result` is the JSON that it wrote."""

    seconds: float  # the whole process, from its start to its end
    peak_bytes: int  # of all its processes together, at the worst moment
    largest_bytes: int  # of any one of them
    processes: int  # the most at one moment
    result: Mapping[str, Any]


def run_rounds(sides: Sequence[Side], rounds: int, scratch: Path) -> dict[str, list[Measured]]:
    """Run every side once a round, one after another, and return what was measured by name."""
    found: dict[str, list[Measured]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            log(f"round {number + 1} of {rounds}: {side.name}")
            found[side.name].append(run_side(side, scratch))
    return found


def run_side(side: Side, scratch: Path) -> Measured:
    """Run a side in a folder that is removed after it.

    Raises:
        UserError: when it fails, with the last line that it printed.
    """
    work = scratch / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "job.json").write_text(json.dumps(dict(side.job)), encoding="utf-8")
    command = [sys.executable, "-m", side.module, side.name, str(work)]
    with (work / "log.txt").open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=_environment() | side.variables
        )
        try:
            memory = _watch(process)
        finally:
            process.kill()
            process.wait()
        seconds = time.perf_counter() - started
    if process.returncode:
        raise UserError(
            f"{side.name} ended with code {process.returncode}: {_last_line(work / 'log.txt')}"
        )
    result = json.loads((work / "result.json").read_text(encoding="utf-8"))
    shutil.rmtree(work)
    return Measured(seconds=seconds, result=result, **memory)


def write_result(work: Path, **result: Any) -> None:
    """Leave what a side found where `run_side` looks for it."""
    (work / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _environment() -> dict[str, str]:
    """Return our variables, so changed that a side imports this very source."""
    source = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


def _watch(process: "subprocess.Popen[bytes]") -> dict[str, int]:
    """Sample the memory of a process and its children until it ends."""
    peak = largest = most = 0
    root = psutil.Process(process.pid)
    while process.poll() is None:
        family = [root]
        with contextlib.suppress(psutil.Error):
            family += root.children(recursive=True)
        sizes = [_size(member) for member in family]
        peak, largest = max(peak, sum(sizes)), max(largest, *sizes)
        most = max(most, len(family))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLE_EVERY_S)
    return {"peak_bytes": peak, "largest_bytes": largest, "processes": most}


def _size(process: "psutil.Process") -> int:
    # A process may end between being listed and being looked at.
    with contextlib.suppress(psutil.Error):
        if MEMORY_KIND == "PSS":
            return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    return 0


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
