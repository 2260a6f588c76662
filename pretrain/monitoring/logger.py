"""The log of a run: `metrics.jsonl`, TensorBoard, and lines on the console.

All three get the same values at the same steps. This is the only file that imports TensorBoard.
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from data_prep.errors import UserError

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_LINES_PER_HEADER = 20
_TENSORBOARD_FLUSH_S = 30


class RunLog:
    """Writes the log of one run, on rank 0 alone.

    Args:
        run_path: the run's folder; it must exist.
        resume_step: the optimizer step that the run continues from, 0 for a new one. Records of
            later steps by an earlier start are dropped, so that no step appears twice.
        total_steps: the last step of the run, for the share done and the time left.

    Raises:
        UserError: when an earlier `metrics.jsonl` is damaged before its last line.
    """

    def __init__(self, run_path: Path, resume_step: int, total_steps: int) -> None:
        first_step = resume_step + 1 if resume_step else 0
        cut_metrics(run_path / METRICS, first_step)
        self._total_steps = total_steps
        self._metrics: TextIO = (run_path / METRICS).open("a", encoding="utf-8")
        self._tensorboard: Any = SummaryWriter(
            str(run_path / TENSORBOARD), purge_step=first_step, flush_secs=_TENSORBOARD_FLUSH_S
        )
        self._bar = tqdm(
            total=total_steps,
            initial=resume_step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._header = ""
        self._lines_since_header = 0

    def write(self, step: int, samples_seen: int, values: Mapping[str, float]) -> None:
        """Record the scalars of one step; the keys are TensorBoard tags such as `loss/mlm`."""
        now = time.time()
        self._metrics.write(metrics_line(step, samples_seen, now, values))
        self._metrics.flush()
        for tag, value in values.items():
            self._tensorboard.add_scalar(tag, value, step, walltime=now)
        self._show(datetime.fromtimestamp(now), step, values)

    def close(self) -> None:
        """Flush and close everything; the log is unusable afterwards."""
        self._bar.close()
        self._tensorboard.close()
        self._metrics.close()

    def _show(self, date: datetime, step: int, values: Mapping[str, float]) -> None:
        header = format_header(self._total_steps, values)
        # Validation lines come between training lines and need no header.
        if header and (header != self._header or self._lines_since_header >= _LINES_PER_HEADER):
            tqdm.write(header, file=sys.stdout)
            self._header, self._lines_since_header = header, 0
        tqdm.write(format_step_line(date, step, self._total_steps, values), file=sys.stdout)
        sys.stdout.flush()
        self._lines_since_header += 1
        self._bar.update(step - self._bar.n)


class ScalarWriter:
    """Writes TensorBoard alone: scalars by step, and pictures.

    Args:
        folder: of the event file; it is made.
    """

    def __init__(self, folder: Path) -> None:
        self._tensorboard: Any = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the scalars of one step by their tags."""
        for tag, value in values.items():
            self._tensorboard.add_scalar(tag, value, step)

    def write_picture(self, tag: str, path: Path) -> None:
        """Record a PNG."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels_HWC = np.asarray(picture.convert("RGB"))
        self._tensorboard.add_image(tag, pixels_HWC, dataformats="HWC")

    def close(self) -> None:
        """Flush and close; the writer is unusable afterwards."""
        self._tensorboard.close()


def metrics_line(step: int, samples_seen: int, time_s: float, values: Mapping[str, float]) -> str:
    """Return one line of `metrics.jsonl`; NaN and infinity, which JSON lacks, become null."""
    finite = {tag: value if math.isfinite(value) else None for tag, value in values.items()}
    record = {"step": step, "samples_seen": samples_seen, "time": round(time_s, 3), **finite}
    return json.dumps(record, allow_nan=False) + "\n"


def cut_metrics(path: Path, first_step: int) -> None:
    """Drop the records of `first_step` and later, and an incomplete last line.

    The file is replaced in one rename: after a second crash it is the old or the new one.
    """
    if not path.exists():
        return
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as kept:
        for record in read_metrics(path):
            if record["step"] < first_step:
                kept.write(json.dumps(record) + "\n")
    temporary.replace(path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a `metrics.jsonl` in order, without an incomplete last line.

    Raises:
        UserError: when a line before the last is not a record.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            record["step"] += 0
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise UserError(
                f"Line {number} of {path} is not a record: remove the line, or move the file away."
            ) from error
        records.append(record)
    return records


def format_header(total_steps: int, values: Mapping[str, float]) -> str:
    """Return the titles above the columns of `format_step_line`, or "" where it has none."""
    titles = " ".join(title for title, _ in _columns(values))
    return f"{'date':<19}  {'step':>{_step_width(total_steps)}} {titles}" if titles else ""


def format_step_line(
    date: datetime, step: int, total_steps: int, values: Mapping[str, float]
) -> str:
    """Return one console line: aligned columns for a training step, a list for a validation."""
    progress = f"{step}/{total_steps}".rjust(_step_width(total_steps))
    start = f"{date:%Y-%m-%d %H:%M:%S}  {progress}"
    if columns := _columns(values, total_steps - step):
        return " ".join([start, *(text for _, text in columns)])
    return "  ".join([start, *(f"{tag} {_plain(tag, value)}" for tag, value in values.items())])


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as `3m12s`, `4h05m` or `2d07h`."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def format_count(value: float) -> str:
    """Return a count in three digits and a decimal prefix, such as `12.3k` or `1.05M`."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # From 0.9995 on, three digits round up to the next prefix.
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:#.3g}".rstrip(".") + prefix
    return f"{value:.0f}"


def _columns(values: Mapping[str, float], steps_left: int = 0) -> list[tuple[str, str]]:
    """Return (title, text) for whatever a training step brings, both padded to one width."""
    cells = [
        ("loss" if tag == "loss/total" else tag.removeprefix("loss/"), f"{value:8.4f}")
        for tag, value in values.items()
        if tag.startswith("loss/")
    ]
    if not cells:
        return []
    if "optim/lr" in values:
        cells.append(("lr", f"{values['optim/lr']:9.2e}"))
    if "speed/tokens_per_s" in values:
        cells.append(("speed", f"{format_count(values['speed/tokens_per_s']):>7} tokens/s"))
    if "speed/mfu" in values:
        cells.append(("MFU", f"{values['speed/mfu']:6.1%}"))
    if "speed/step_ms" in values:
        left_s = steps_left * values["speed/step_ms"] / 1000
        cells.append(("left", f"{format_duration(left_s):>7}"))
    if "memory/peak_gib" in values:
        cells.append(("memory", f"{values['memory/peak_gib']:7.2f} GiB"))
    widths = [max(len(title), len(text)) for title, text in cells]
    return [(cell[0].rjust(n), cell[1].rjust(n)) for cell, n in zip(cells, widths, strict=True)]


def _plain(tag: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in tag else f"{value:.4f}"


def _step_width(total_steps: int) -> int:
    return 2 * len(str(total_steps)) + 1
