"""All GPU benchmarks in one call with a time budget: kernels, train (base, large), distill.

Each part is a process of its own, so that one that fails or hangs costs the others nothing. Its
report is DIR/NAME.json, its output DIR/NAME.log; the report of a failed part has `error` and no
rows. The budget is divided by weight, and what a part leaves goes to those after it.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.progress import log
from launch.benchmarks.driver import last_line, positive, source_environment
from launch.benchmarks.report import print_table, write_findings

_BENCH = Path(__file__).parents[1] / "bench.py"


@dataclass(frozen=True)
class Part:
    """One benchmark with its options; `weight` is its share of the time."""

    name: str
    words: tuple[str, ...]
    weight: float


PARTS = (
    Part("kernels", ("kernels", "--sizes", "base_16k", "large_64k"), 2),
    Part("train_base", ("train", "--shape", "base", "--row-tokens", "128"), 2),
    Part("train_large", ("train", "--shape", "large", "--row-tokens", "512", "--repeat", "3"), 3),
    Part("distill", ("distill", "--teacher-shape", "base", "--repeat", "3"), 3),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this command."""
    minutes = "for all parts together"
    parser.add_argument("--minutes", type=positive(float), default=10.0, help=minutes)
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), metavar="DIR",
                        help="where the reports and logs go")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="list what would run, and stop")


def run_command_line(arguments: argparse.Namespace) -> None:
    """Run all parts, print one table, and exit with 1 when a part has failed.

    Raises:
        UserError: on a machine without a GPU.
    """
    if arguments.dry_run:
        for part, seconds in _limits(PARTS, 60 * arguments.minutes):
            print(f"at most {seconds:4.0f} s: {shlex.join(_command(part, arguments))}")
        return
    if not has_gpu():
        raise UserError("bench.py gpu needs a GPU, and torch finds none on this machine.")
    reports = run_parts(PARTS, arguments)
    rows = [row for report in reports.values() for row in report["rows"]]
    print_table(rows)
    if arguments.json:
        write_findings(arguments.json, {"rows": rows})
    failed = {name: report["error"] for name, report in reports.items() if "error" in report}
    for name, error in failed.items():
        print(f"error: {name} failed: {error}", file=sys.stderr)
    if failed:
        sys.exit(1)


def run_parts(parts: Sequence[Part], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the parts one after another, and return their reports by name."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * arguments.minutes
    reports = {}
    for index, part in enumerate(parts):
        (_, limit_s), *_ = _limits(parts[index:], end - time.monotonic())
        log(f"{part.name}: at most {limit_s:.0f} s")
        report = arguments.out / f"{part.name}.json"
        report.unlink(missing_ok=True)
        if error := _run_part(part, arguments, limit_s):
            write_findings(report, {"rows": [], "error": error})
        reports[part.name] = json.loads(report.read_text(encoding="utf-8"))
    return reports


def has_gpu() -> bool:
    """Return whether torch finds a GPU."""
    import torch

    return torch.cuda.is_available()


def _run_part(part: Part, arguments: argparse.Namespace, limit_s: float) -> str | None:
    """Run a part in a process of its own; return the reason when it fails."""
    path = arguments.out / f"{part.name}.log"
    with path.open("wb") as output:
        command, environment = _command(part, arguments), source_environment()
        try:
            ended = subprocess.run(
                command, stdout=output, stderr=output, env=environment, timeout=max(limit_s, 0.1)
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s:.0f} s, its share of --minutes {arguments.minutes:g}"
    return f"code {ended.returncode}: {last_line(path)}" if ended.returncode else None


def _limits(parts: Sequence[Part], seconds: float) -> list[tuple[Part, float]]:
    """Divide seconds among parts by their weights."""
    whole = sum(part.weight for part in parts)
    return [(part, seconds * part.weight / whole) for part in parts]


def _command(part: Part, arguments: argparse.Namespace) -> list[str]:
    report = arguments.out / f"{part.name}.json"
    options = ["--quick"] if arguments.quick else []
    options += ["--scratch", str(arguments.scratch)] if arguments.scratch else []
    return [sys.executable, str(_BENCH), *part.words, "--json", str(report), *options]
