"""What a benchmark measured: rows of medians and ratios, as a table and as JSON."""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.errors import UserError

_PACKAGES = {"stillhouse", "numpy", "tokenizers", "datasets", "pyarrow", "transformers", "torch",
             "triton", "deepspeed"}  # fmt: skip
# Units of which less is better; of all others, more is.
_TIMES = ("ms",)
_MILLION = 1e6


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured quantity: `ours/...`, or `peer/...` or `limit/...` to compare it with.

    Attributes:
        values: one figure a round, in `unit`; the rounds of different rows are interleaved.
        ratio: how many times as good the row is as others, by their names.
        details: for the JSON file alone, such as the operations that take the time of a step.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    peak_bytes: int | None = None
    ratio: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def against(self, others: Iterable["Row"]) -> "Row":
        """Return the row with its ratio to each of the others."""
        return replace(self, ratio=self.ratio | {o.name: ratio_of(self, o) for o in others})

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": statistics.median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "peak_bytes": self.peak_bytes,
            "ratio": self.ratio,
            **({"details": self.details} if self.details else {}),
        }


def ratio_of(ours: Row, other: Row) -> float:
    """Return the median over rounds of how many times as good ours is as the other.

    A busy moment of a shared machine slows both figures of a round, and keeps their ratio.
    """
    pairs = zip(ours.values, other.values, strict=True)
    return statistics.median(b / a if ours.unit in _TIMES else a / b for a, b in pairs)


def compare(rows: Sequence[Row], against: Mapping[str, Sequence[str]] | None = None) -> list[Row]:
    """Return the rows, ours last and with their ratios.

    Args:
        rows: of all sides.
        against: names of the rows that each of ours is compared with; all peers and limits
            if left out.
    """
    ours = [row for row in rows if row.name.startswith("ours/")]
    others = {row.name: row for row in rows if row not in ours}
    named = {row.name: row for row in rows}
    wanted = {row.name: others if against is None else against[row.name] for row in ours}
    return [*others.values(), *(row.against(named[n] for n in wanted[row.name]) for row in ours)]


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the JSON objects of rows, aligned, with units and ratios."""
    width = max((len(row["name"]) for row in rows), default=0)
    print(f"{'':{width}}  {'median':>12}  {'min':>12}  {'max':>12}  {'unit':10}  {'peak MB':>8}")
    for row in rows:
        figures = "  ".join(f"{_shown(row[key]):>12}" for key in ("median", "min", "max"))
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / _MILLION:,.0f}"
        print(f"{row['name']:{width}}  {figures}  {row['unit']:10}  {peak:>8}")
        for name, ratio in row["ratio"].items():
            print(f"{'':{width}}  {ratio:12.2f} x {name}")


def write_findings(path: Path, findings: Mapping[str, Any]) -> None:
    """Write findings as JSON, with the machine and the versions that they were measured on.

    Raises:
        UserError: when the file cannot be written.
    """
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    report = {
        "gpu": _gpu(),
        "device": _device(),
        "versions": {"python": platform.python_version()}
        | {name: installed[name] for name in sorted(_PACKAGES & installed.keys())},
        "commit": _commit(),
        **findings,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"The report {path} cannot be written ({error}): correct --json.") from None


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"


def _device() -> str:
    """Return the name of the GPU where one was used, of the processor, and its usable cores."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        name = next(models, name)
    devices = [_gpu(), name, f"{usable_cores()} core(s)"]
    return ", ".join(device for device in devices if device)


def _gpu() -> str | None:
    # Without torch in this process, no GPU was used.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())


def _commit() -> str | None:
    """Return the commit of this source, with `-dirty` after changes; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
