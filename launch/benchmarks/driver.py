"""The driver of all benchmarks: sides measured in turns, round after round.

A side is a function that does the work of one round: in a fresh process here, or on a device
(`device.py`). The memory of a process is that of it and all its children at the same moment, so
that work in worker processes counts; on Linux as the proportional set size (PSS), in which a page
that several processes share counts once, elsewhere as the resident set size.

    python -m launch.benchmarks.driver MODULE SIDE FOLDER

runs a side in a process: the module's `SIDES[SIDE]` is called with the JSON object in
FOLDER/job.json and FOLDER, and what it returns is written to FOLDER/result.json.
"""

import argparse
import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.progress import log
from launch.benchmarks.report import Row

# Linux walks the page tables of a process for its PSS, which holds up the process meanwhile.
_SAMPLE_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Run:
    """One side in one round.

    Attributes:
        seconds: of the work; of a process, from its start to its end.
        peak_bytes: the most memory at one moment; None where it is not measured.
        result: figures of the side's own.
    """

    seconds: float
    peak_bytes: int | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


Found = Mapping[str, Sequence[Run]]


def measure_in_turns(sides: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Run every side once a round, one after another, and return the runs by the side's name."""
    found: dict[str, list[Run]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            log(f"round {number + 1} of {rounds}: {name}")
            found[name].append(run())
    return found


def row_of(
    name: str, unit: str, runs: Sequence[Run], value: Callable[[Run], float], **details: Any
) -> Row:
    """Return the row of a side: a value of each run, and the most memory of any."""
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    peak = max(peaks, default=None)
    values = tuple(value(run) for run in runs)
    return Row(name=name, unit=unit, values=values, peak_bytes=peak, details=details)


def tokens_per_s(run: Run) -> float:
    """Return the speed that a side counted itself, without the start of its process."""
    return float(run.result["tokens"] / run.result["seconds"])


def count_options(
    parser: argparse.ArgumentParser, counts: Mapping[str, tuple[int | None, str]]
) -> None:
    """Declare options that take a number above 0, with their defaults and meanings."""
    for name, (default, meaning) in counts.items():
        parser.add_argument(name, type=positive(int), default=default, help=meaning)


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the type of an option that takes a number above 0."""

    def number(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return number


def process_side(
    module: str, name: str, job: Mapping[str, Any], scratch: Path, threads: int = 1
) -> Callable[[], Run]:
    """Return a side that runs in a fresh process, in a folder that is removed after it.

    Args:
        module: whose `SIDES` has the side's function by its name.
        name: of the side.
        job: what the function is called with, as JSON.
        scratch: where the folder is made.
        threads: of its tokenizer.
    """
    variables = {
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "RAYON_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return partial(_run_process, module, name, job, scratch / "work", variables)


def _run_process(
    module: str, name: str, job: Mapping[str, Any], work: Path, variables: Mapping[str, str]
) -> Run:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "job.json").write_text(json.dumps(dict(job)), encoding="utf-8")
    command = [sys.executable, "-m", __name__, module, name, str(work)]
    environment = source_environment() | dict(variables)
    with (work / "log.txt").open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            memory = _watch_memory(process)
        finally:
            process.kill()
            process.wait()
        seconds = time.perf_counter() - started
    if process.returncode:
        reason = last_line(work / "log.txt")
        raise UserError(f"{name} ended with code {process.returncode}: {reason}")
    result = json.loads((work / "result.json").read_text(encoding="utf-8"))
    shutil.rmtree(work)
    return Run(seconds=seconds, peak_bytes=memory["peak_bytes"], result=result | memory)


def source_environment() -> dict[str, str]:
    """Return the environment for a child process that imports this very source."""
    source = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _watch_memory(process: "subprocess.Popen[bytes]") -> dict[str, int]:
    """Sample the memory of a process and its children until it ends.

    Returns:
        `peak_bytes` of all at once, `largest_bytes` of any one, and the most `processes` at once.
    """
    import psutil

    peak = largest = most = 0
    root = psutil.Process(process.pid)
    while process.poll() is None:
        family = [root]
        with contextlib.suppress(psutil.Error):
            family += root.children(recursive=True)
        sizes = [_memory_of(member) for member in family]
        peak, largest = max(peak, sum(sizes)), max(largest, *sizes)
        most = max(most, len(family))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLE_EVERY_S)
    return {"peak_bytes": peak, "largest_bytes": largest, "processes": most}


def _memory_of(process: Any) -> int:
    import psutil

    # A process may end between being listed and being read.
    with contextlib.suppress(psutil.Error):
        found = process.memory_full_info()
        return int(getattr(found, "pss", found.rss))
    return 0


def _main() -> None:
    module, name, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    result = importlib.import_module(module).SIDES[name](job, work)
    (work / "result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _main()
