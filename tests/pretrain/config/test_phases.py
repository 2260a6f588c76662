"""Phases: a step knows its shape and its rows, and no text comes back early."""

import pytest

from data_prep.errors import UserError
from pretrain.config.phases import Phase, phase_at, phases_of, ramp_rows
from pretrain.config.train import RampOptions, TrainOptions


def train(steps: int, *phases: dict[str, int]) -> TrainOptions:
    return TrainOptions(
        steps=steps, batch_rows=8, micro_rows=4, row_tokens=128, phases=list(phases)
    )  # type: ignore[arg-type]


def test_without_phases_the_run_is_one_of_the_plain_keys() -> None:
    (phase,) = phases_of(train(100))
    assert phase == Phase(
        first_step=0, steps=100, row_tokens=128, batch_rows=8, micro_rows=4, first_row=0
    )
    assert [phase.row_of(step) for step in (0, 1, 99)] == [0, 8, 792]


def test_a_phase_changes_what_it_names() -> None:
    long = {"steps": 10, "row_tokens": 512, "batch_rows": 2, "micro_rows": 1}
    first, second = phases_of(train(100, {"steps": 90}, long))
    assert (first.row_tokens, first.batch_rows, first.micro_rows) == (128, 8, 4)
    assert (second.row_tokens, second.batch_rows, second.micro_rows) == (512, 2, 1)
    assert [phase_at([first, second], step) for step in (0, 89, 90, 99)] == [
        first, first, second, second,
    ]  # fmt: skip
    assert second.row_of(90) == 0, "rows of another length are other rows"


def test_rows_of_one_length_go_on_through_all_phases() -> None:
    phases = phases_of(
        train(
            60,
            {"steps": 10, "batch_rows": 4},
            {"steps": 20, "row_tokens": 512},
            {"steps": 30, "batch_rows": 16},
        )
    )
    short = [phase for phase in phases if phase.row_tokens == 128]
    taken = [
        row
        for phase in short
        for step in range(phase.first_step, phase.first_step + phase.steps)
        for row in range(phase.row_of(step), phase.row_of(step) + phase.batch_rows)
    ]
    assert taken == list(range(10 * 4 + 30 * 16))


def test_the_longest_row_is_that_of_any_phase() -> None:
    assert train(100).longest_row == 128
    assert train(100, {"steps": 50, "row_tokens": 512}, {"steps": 50}).longest_row == 512


def test_a_ramp_is_phases_of_growing_batches_that_read_every_row_once() -> None:
    ramp = {"from_rows": 64, "steps": 10, "stages": 3}
    options = TrainOptions(
        steps=30,
        batch_rows=512,
        micro_rows=16,
        ramp=ramp,  # type: ignore[arg-type]
        phases=[{"steps": 20}, {"steps": 10, "row_tokens": 64}],  # type: ignore[list-item]
    )
    phases = phases_of(options)
    # On the line 64, 213, 363 to 512, in multiples of 64; 10 steps in three stages.
    assert [(phase.steps, phase.batch_rows) for phase in phases] == [
        (3, 64), (3, 192), (4, 320), (10, 512), (10, 512),
    ]  # fmt: skip
    assert [phase.first_step for phase in phases] == [0, 3, 6, 10, 20]
    assert [phase.first_row for phase in phases] == [0, 192, 768, 2048, 0]
    assert [phase.micro_batches(2) for phase in phases] == [2, 6, 10, 16, 16]


def test_the_curve_of_a_ramped_phase_begins_at_its_first_stage() -> None:
    phases = phases_of(
        TrainOptions(
            steps=30,
            batch_rows=8,
            micro_rows=1,
            ramp={"from_rows": 2, "steps": 10, "stages": 2},  # type: ignore[arg-type]
            phases=[{"steps": 30, "lr": 0.5, "warmup_steps": 4}],  # type: ignore[list-item]
        )
    )
    assert [(phase.lr, phase.warmup_steps) for phase in phases] == [(0.5, 4), (None, 0), (None, 0)]


@pytest.mark.parametrize("stages", range(1, 32))
def test_every_stage_of_a_ramp_is_larger_than_the_one_before(stages: int) -> None:
    rows = [*ramp_rows(RampOptions(from_rows=3, steps=32, stages=stages), 96), 96]
    assert rows[0] == 3 and rows == sorted(set(rows))
    assert all(number % 3 == 0 for number in rows)


@pytest.mark.parametrize(
    ("batch_rows", "micro_rows", "world", "expected"), [(64, 16, 2, 2), (8, 1, 4, 2), (6, 6, 1, 1)]
)
def test_micro_batches_are_counted(
    batch_rows: int, micro_rows: int, world: int, expected: int
) -> None:
    options = TrainOptions(steps=1, batch_rows=batch_rows, micro_rows=micro_rows)
    assert phases_of(options)[0].micro_batches(world) == expected


@pytest.mark.parametrize(("batch_rows", "micro_rows", "multiple"), [(32, 12, 24), (24, 8, 16)])
def test_a_batch_that_does_not_divide_is_refused_with_the_multiple(
    batch_rows: int, micro_rows: int, multiple: int
) -> None:
    message = rf"batch_rows {batch_rows} .*micro_rows {micro_rows} times 2 .* of {multiple}\."
    phase = phases_of(TrainOptions(steps=1, batch_rows=batch_rows, micro_rows=micro_rows))[0]
    with pytest.raises(UserError, match=message):
        phase.micro_batches(2)
