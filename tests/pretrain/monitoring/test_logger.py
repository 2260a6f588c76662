"""The log of a run: no step twice, always valid JSON, readable lines."""

import json
import math
from datetime import datetime
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_prep.errors import UserError
from pretrain.monitoring.logger import (
    METRICS,
    TENSORBOARD,
    RunLog,
    format_count,
    format_duration,
    format_header,
    format_step_line,
    metrics_line,
    read_metrics,
)

DATE = datetime(2030, 1, 2, 3, 4, 5)
TRAINING = {
    "loss/total": 7.25,
    "loss/mlm": 6.5,
    "loss/nsp": 0.75,
    "optim/lr": 1e-4,
    "speed/tokens_per_s": 12_345.0,
    "speed/step_ms": 250.0,
    "memory/peak_gib": 1.5,
}
VALIDATION = {"validation/loss_mlm": 6.125, "validation/accuracy_mlm": 0.1234}


def record(run: Path, first: int, last: int, resume_step: int, value: float) -> None:
    log = RunLog(run, resume_step, total_steps=100)
    for step in range(first, last + 1):
        log.write(step, step * 32, {"loss/total": value})
    log.close()


def steps_of(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / METRICS).read_text().splitlines()]


def tensorboard_of(run: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run / TENSORBOARD)).Reload()
    return [(event.step, event.value) for event in events.Scalars("loss/total")]


def test_values_reach_file_and_tensorboard(tmp_path: Path) -> None:
    """Every value reaches the file and TensorBoard under its tag."""
    log = RunLog(tmp_path, resume_step=0, total_steps=100)
    log.write(10, 320, TRAINING)
    log.write(10, 320, VALIDATION)
    log.close()
    training, validation = (
        json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()
    )
    assert {key: training[key] for key in TRAINING} == TRAINING
    assert {key: validation[key] for key in VALIDATION} == VALIDATION
    assert (training["step"], training["samples_seen"]) == (10, 320)
    assert training["time"] == pytest.approx(datetime.now().timestamp(), abs=60)
    tags = EventAccumulator(str(tmp_path / TENSORBOARD)).Reload().Tags()["scalars"]
    assert set(tags) == {*TRAINING, *VALIDATION}


def test_resume_logs_no_step_twice(tmp_path: Path) -> None:
    """A resumed run records no step twice."""
    record(tmp_path, 1, 8, resume_step=0, value=1.0)
    record(tmp_path, 6, 10, resume_step=5, value=2.0)
    assert steps_of(tmp_path) == list(range(1, 11))
    expected = [(step, 1.0 if step <= 5 else 2.0) for step in range(1, 11)]
    assert tensorboard_of(tmp_path) == expected


def test_restart_drops_earlier_records(tmp_path: Path) -> None:
    """A run that starts over drops the records of an earlier start."""
    record(tmp_path, 0, 4, resume_step=0, value=1.0)
    record(tmp_path, 0, 2, resume_step=0, value=2.0)
    assert steps_of(tmp_path) == [0, 1, 2]
    assert tensorboard_of(tmp_path) == [(0, 2.0), (1, 2.0), (2, 2.0)]


def test_incomplete_last_line_is_dropped(tmp_path: Path) -> None:
    """A last line that a crash left incomplete is dropped on resume."""
    record(tmp_path, 1, 3, resume_step=0, value=1.0)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "samples_se')
    record(tmp_path, 4, 4, resume_step=3, value=1.0)
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_damaged_line_is_refused(tmp_path: Path) -> None:
    """Damage before the last line is refused, with its line number."""
    (tmp_path / METRICS).write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"Line 2 of .*metrics\.jsonl"):
        RunLog(tmp_path, resume_step=3, total_steps=10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_value_is_null(value: float, tmp_path: Path) -> None:
    """NaN and infinity are null in the file, which stays valid JSON."""
    line = metrics_line(1, 32, 0.0, {"loss/total": value, "loss/mlm": 1.0})
    (tmp_path / METRICS).write_text(line)
    (only,) = read_metrics(tmp_path / METRICS)
    assert only["loss/total"] is None
    assert only["loss/mlm"] == 1.0


def test_training_line_has_units() -> None:
    """A training line names the unit of every number."""
    line = format_step_line(DATE, 20, 100, TRAINING)
    assert line.split() == [
        "2030-01-02", "03:04:05", "20/100", "7.2500", "6.5000", "0.7500", "1.00e-04",
        "12.3k", "tokens/s", "20s", "1.50", "GiB",
    ]  # fmt: skip


def test_header_aligns_with_columns() -> None:
    """A header stands right above its columns, whatever the loss terms."""
    values = {**TRAINING, "loss/a_part_with_a_long_name": 123.0}
    header = format_header(100, values)
    line = format_step_line(DATE, 20, 100, values)
    assert len(header) == len(line)
    for title, text in (("step", "20/100"), ("mlm", "6.5000"), ("lr", "1.00e-04"),
                        ("a_part_with_a_long_name", "123.0000"), ("memory", "GiB")):  # fmt: skip
        assert header.index(title) + len(title) == line.index(text) + len(text)


def test_validation_line_has_no_header() -> None:
    """A validation line lists its tags and values, without a header."""
    line = format_step_line(DATE, 20, 100, VALIDATION)
    assert "validation/loss_mlm 6.1250" in line
    assert "validation/accuracy_mlm 12.34%" in line
    assert format_header(100, VALIDATION) == ""


def test_header_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The console shows the header again after twenty lines, and when columns change."""
    log = RunLog(tmp_path, resume_step=0, total_steps=100)
    for step in range(1, 22):
        log.write(step, step, TRAINING)
    log.close()
    lines = capsys.readouterr().out.splitlines()
    assert [n for n, line in enumerate(lines) if line.startswith("date")] == [0, 21]
    assert len(lines) == 23


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m00s"), (192, "3m12s"), (14_700, "4h05m"), (198_000, "2d07h"),
     (math.nan, "?")],
)  # fmt: skip
def test_duration_format(seconds: float, text: str) -> None:
    """A duration has its two largest units."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (12_345, "12.3k"), (123_456, "123k"), (1_050_000, "1.05M"),
     (2.5e9, "2.50G"), (999_999, "1.00M")],
)  # fmt: skip
def test_count_format(value: float, text: str) -> None:
    """A count has three digits and a prefix."""
    assert format_count(value) == text
