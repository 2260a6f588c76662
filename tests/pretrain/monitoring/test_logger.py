"""The record of a run: no step twice, valid JSON always, lines that a person can read."""

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


def test_every_value_reaches_the_file_and_tensorboard_under_its_tag(tmp_path: Path) -> None:
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


def test_a_resumed_run_records_no_step_twice(tmp_path: Path) -> None:
    record(tmp_path, 1, 8, resume_step=0, value=1.0)
    record(tmp_path, 6, 10, resume_step=5, value=2.0)
    assert steps_of(tmp_path) == list(range(1, 11))
    expected = [(step, 1.0 if step <= 5 else 2.0) for step in range(1, 11)]
    assert tensorboard_of(tmp_path) == expected


def test_a_run_that_starts_over_keeps_nothing_of_the_attempt_before(tmp_path: Path) -> None:
    record(tmp_path, 0, 4, resume_step=0, value=1.0)
    record(tmp_path, 0, 2, resume_step=0, value=2.0)
    assert steps_of(tmp_path) == [0, 1, 2]
    assert tensorboard_of(tmp_path) == [(0, 2.0), (1, 2.0), (2, 2.0)]


def test_a_last_line_that_a_crash_tore_is_dropped_on_resume(tmp_path: Path) -> None:
    record(tmp_path, 1, 3, resume_step=0, value=1.0)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "samples_se')
    record(tmp_path, 4, 4, resume_step=3, value=1.0)
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_damage_before_the_last_line_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"Line 2 of .*metrics\.jsonl"):
        RunLog(tmp_path, resume_step=3, total_steps=10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_leaves_valid_json(value: float, tmp_path: Path) -> None:
    line = metrics_line(1, 32, 0.0, {"loss/total": value, "loss/mlm": 1.0})
    (tmp_path / METRICS).write_text(line)
    (only,) = read_metrics(tmp_path / METRICS)
    assert only["loss/total"] is None
    assert only["loss/mlm"] == 1.0


def test_a_training_line_names_the_unit_of_every_number() -> None:
    line = format_step_line(DATE, 20, 100, TRAINING)
    assert line.split() == [
        "2030-01-02", "03:04:05", "20/100", "7.2500", "6.5000", "0.7500", "1.00e-04",
        "12.3k", "tokens/s", "20s", "1.50", "GiB",
    ]  # fmt: skip


def test_a_header_stands_right_above_its_columns_whatever_the_loss_parts() -> None:
    values = {**TRAINING, "loss/a_part_with_a_long_name": 123.0}
    header = format_header(100, values)
    line = format_step_line(DATE, 20, 100, values)
    assert len(header) == len(line)
    for title, text in (("step", "20/100"), ("mlm", "6.5000"), ("lr", "1.00e-04"),
                        ("a_part_with_a_long_name", "123.0000"), ("memory", "GiB")):  # fmt: skip
        assert header.index(title) + len(title) == line.index(text) + len(text)


def test_a_validation_line_lists_its_values_without_a_header() -> None:
    line = format_step_line(DATE, 20, 100, VALIDATION)
    assert "validation/loss_mlm 6.1250" in line
    assert "validation/accuracy_mlm 12.34%" in line
    assert format_header(100, VALIDATION) == ""


def test_the_console_shows_a_header_again_after_twenty_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (12_345, "12.3k"), (123_456, "123k"), (1_050_000, "1.05M"),
     (2.5e9, "2.50G"), (999_999, "1.00M")],
)  # fmt: skip
def test_a_count_is_told_in_three_digits(value: float, text: str) -> None:
    assert format_count(value) == text
