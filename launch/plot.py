"""Draw the curves of one run or several into one picture.

    python launch/plot.py runs/teacher runs/student --out plots.png

It reads each run's metrics.jsonl. Solid lines are training (averaged where there are more points
than the eye can tell apart), dashed ones with dots validation; every run keeps its color.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    import numpy as np
    import numpy.typing as npt

    from data_prep.errors import UserError
    from launch.command_line.errors import run_command
    from launch.command_line.parser import CommandParser

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = list[dict[str, Any]]

DEFAULT_TAGS = ("loss/", "accuracy/", "optim/lr", "optim/grad_norm", "speed/tokens_per_s")
_COLUMNS = 3
_POINTS_PER_CURVE = 300
_TITLES = {
    "optim/lr": "learning rate",
    "optim/grad_norm": "gradient norm",
    "speed/tokens_per_s": "real tokens/s",
    "speed/step_ms": "step (ms)",
    "memory/peak_gib": "peak memory (GiB)",
}
_VALIDATION_LINE: dict[str, Any] = {"lw": 1.1, "ls": "--", "marker": "o", "ms": 3.5}
_GREY = "#6b6b6b"
_COLORS = ("#1b6ca8", "#d1603d", "#3b8f5a", "#8a5aa8", "#c29a2c", "#3f4b59", "#c2578a", "#5fa8b8")


@dataclass(frozen=True)
class Curve:
    """One tag of one run; `values` has NaN where the run recorded a value that is not finite."""

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


def main() -> None:
    """Read the command line and write the picture."""
    arguments = _parser().parse_args()
    runs = {
        name: _read_run(path)
        for name, path in zip(run_names(arguments.runs), arguments.runs, strict=True)
    }
    tags = choose_tags(runs.values(), arguments.tags)
    draw(runs, tags, arguments.out)
    print(f"{arguments.out}: {len(tags)} panels, {len(runs)} runs")


def run_names(paths: Sequence[Path]) -> list[str]:
    """Name runs by their folder, or by their whole path where two folders are namesakes."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def choose_tags(runs: Iterable[Records], wanted: Sequence[str]) -> list[str]:
    """Return the recorded tags that start with a wanted prefix, in the order of the prefixes.

    Raises:
        UserError: when a prefix fits no tag; the message lists what was recorded.
    """
    recorded = dict.fromkeys(
        tag for records in runs for record in records for tag in record if "/" in tag
    )
    for prefix in wanted:
        if not any(tag.startswith(prefix) for tag in recorded):
            known = ", ".join(recorded) or "none"
            raise UserError(f"No run recorded a tag like {prefix!r}: recorded ones are {known}.")
    prefixes = wanted or DEFAULT_TAGS
    chosen = [tag for prefix in prefixes for tag in recorded if tag.startswith(prefix)]
    if not chosen:
        raise UserError("The runs hold no metrics yet: wait for their first logged step.")
    return list(dict.fromkeys(chosen))


def curve_of(records: Records, tag: str) -> Curve:
    """Return the recorded values of a tag over the steps that have one."""
    points = [(record["step"], record[tag]) for record in records if tag in record]
    values = [math.nan if value is None else float(value) for _, value in points]
    return Curve(np.array([step for step, _ in points], np.int64), np.array(values, np.float64))


def thin(curve: Curve, points: int = _POINTS_PER_CURVE) -> Curve:
    """Return the curve as at most `points` means over neighboring steps; NaN stays visible."""
    if len(curve.steps) <= points:
        return curve
    edges = np.linspace(0, len(curve.steps), points + 1).astype(np.int64)[:-1]
    counts = np.diff(np.append(edges, len(curve.steps)))
    return Curve(
        np.add.reduceat(curve.steps, edges) // counts,
        np.add.reduceat(curve.values, edges) / counts,
    )


def format_tick(value: float) -> str:
    """Return an axis label such as `0.25`, `7.5e-05`, `2.5k` or `1.2M`."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def draw(runs: dict[str, Records], tags: Sequence[str], out: Path) -> None:
    """Write a PNG with one panel a tag, in which every run has its color.

    Raises:
        UserError: when matplotlib is not installed or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError("Plots need matplotlib: pip install -e '.[plots]'.") from error
    columns = min(_COLUMNS, len(tags))
    rows = math.ceil(len(tags) / columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, tag in zip(panels, tags, strict=False):
        _draw_panel(panel, runs, tag)
    for panel in panels[len(tags) :]:
        panel.remove()
    _draw_legend(figure, runs)
    try:
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"The picture {out} cannot be written: {error}.") from error


def _draw_legend(figure: "Figure", runs: Iterable[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, lw=2.5, label=run) for run, color in _colored(runs)]
    handles.append(Line2D([], [], color=_GREY, lw=1.6, label="training"))
    handles.append(Line2D([], [], color=_GREY, label="validation", **_VALIDATION_LINE))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=10
    )


def _draw_panel(panel: "Axes", runs: dict[str, Records], tag: str) -> None:
    group, _, name = tag.partition("/")
    for run, color in _colored(runs):
        training = thin(curve_of(runs[run], tag))
        panel.plot(training.steps, training.values, color=color, lw=1.6)
        validation = curve_of(runs[run], f"validation/{group}_{name}")
        panel.plot(validation.steps, validation.values, color=color, **_VALIDATION_LINE)
    panel.set_title(_TITLES.get(tag, f"{name} {group}"), fontsize=10.5, loc="left")
    _style(panel, share=group == "accuracy")


def _style(panel: "Axes", share: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
    if share:
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_xlabel("step", fontsize=9, color=_GREY)
    panel.tick_params(labelsize=9, color=_GREY, labelcolor=_GREY)
    panel.grid(color="#e6e6e6", lw=0.8)
    panel.set_axisbelow(True)
    panel.margins(x=0.02, y=0.08)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("#c8c8c8")


def _colored(runs: Iterable[str]) -> Iterator[tuple[str, str]]:
    for number, run in enumerate(runs):
        yield run, _COLORS[number % len(_COLORS)]


def _read_run(path: Path) -> Records:
    # Imported here, so that --help does not wait for TensorBoard.
    from pretrain.monitoring.logger import METRICS, read_metrics

    if not (path / METRICS).is_file():
        raise UserError(f"{path} has no {METRICS}: name the folder of a run, such as runs/teacher.")
    return read_metrics(path / METRICS)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--out", type=Path, default=Path("plots.png"), metavar="FILE", help="the picture to write"
    )
    parser.add_argument(
        "--tags",
        nargs="+",
        default=[],
        metavar="TAG",
        help=f"tags, or beginnings of tags; default: {' '.join(DEFAULT_TAGS)}",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
