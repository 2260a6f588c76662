"""Curves: the right numbers in the right panels, and one sentence where there are none."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from launch import plot
from launch.command_line.errors import run_command
from pretrain.monitoring.logger import METRICS, metrics_line, read_metrics

PNG = b"\x89PNG\r\n\x1a\n"


def make_run(path: Path, steps: int = 20, **extra: float) -> Path:
    path.mkdir(parents=True)
    lines = [
        metrics_line(step, step * 8, 0.0, {"loss/total": 9.0 / step, "optim/lr": 1e-4, **extra})
        for step in range(1, steps + 1)
    ]
    lines.append(metrics_line(steps, steps * 8, 0.0, {"validation/loss_total": 1.0}))
    (path / METRICS).write_text("".join(lines))
    return path


def plot_exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["plot.py", *map(str, arguments)])
    try:
        run_command(plot.main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_two_runs_make_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command draws several runs into one PNG."""
    runs = [make_run(tmp_path / name) for name in ("teacher", "student")]
    out = tmp_path / "plots.png"
    assert plot_exit_code(monkeypatch, *runs, "--out", out) == 0
    assert out.read_bytes().startswith(PNG)


def test_curve_has_gaps_for_nan() -> None:
    """A curve holds the recorded values, and NaN where a value was not finite."""
    records = [
        {"step": 1, "loss/total": 3.0},
        {"step": 1, "validation/loss_total": 5.0},
        {"step": 2, "loss/total": None},
        {"step": 3, "loss/total": 1.0},
    ]
    curve = plot.curve_of(records, "loss/total")
    assert curve.steps.tolist() == [1, 2, 3]
    np.testing.assert_equal(curve.values, [3.0, math.nan, 1.0])


def test_long_curve_is_averaged() -> None:
    """A curve with many points is averaged in bins; a short one is unchanged."""
    curve = plot.Curve(np.arange(1000), np.arange(1000) * 2.0)
    thinned = plot.thin(curve, points=7)
    parts = np.split(curve.values, np.searchsorted(curve.steps, [142, 285, 428, 571, 714, 857]))
    np.testing.assert_allclose(thinned.values, [part.mean() for part in parts])
    assert plot.thin(curve, points=1000) is curve


def test_panels_follow_requested_order(
    tmp_path: Path,
) -> None:
    """Panels are in the order of the tags; validation is drawn in its training panel."""
    records = read_metrics(make_run(tmp_path / "run", **{"loss/cosine": 0.5}) / METRICS)
    assert plot.choose_tags([records], []) == ["loss/total", "loss/cosine", "optim/lr"]
    assert plot.choose_tags([records], ["optim/", "loss/c"]) == ["optim/lr", "loss/cosine"]
    assert plot.choose_tags([records], ["validation/"]) == ["validation/loss_total"]


def test_unknown_tag_lists_recorded(tmp_path: Path) -> None:
    """A tag that no run recorded is refused with those that were."""
    records = read_metrics(make_run(tmp_path / "run") / METRICS)
    with pytest.raises(UserError, match=r"'loss/relation'.*loss/total, optim/lr"):
        plot.choose_tags([records], ["loss/relation"])


def test_folder_without_metrics_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without metrics.jsonl is refused in one sentence."""
    assert plot_exit_code(monkeypatch, tmp_path) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} has no metrics.jsonl: name the folder of a run, such as runs/teacher.\n"
    )


def test_missing_matplotlib_names_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without matplotlib the sentence has the command that installs it."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert plot_exit_code(monkeypatch, make_run(tmp_path / "run")) == 2
    assert "pip install -e '.[plots]'" in capsys.readouterr().err


def test_equal_folder_names_are_distinct(tmp_path: Path) -> None:
    """Runs with the same folder name are labelled by their paths."""
    paths = [tmp_path / "a" / "teacher", tmp_path / "b" / "teacher"]
    assert plot.run_names(paths) == [str(path) for path in paths]
    assert plot.run_names([paths[0], tmp_path / "student"]) == ["teacher", "student"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (7.5e-5, "7.5e-05"), (2500, "2.5k"), (2e6, "2M")]
)
def test_axis_label_is_short(value: float, text: str) -> None:
    """Axis labels have a few digits and a unit prefix."""
    assert plot.format_tick(value) == text
