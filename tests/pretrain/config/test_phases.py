"""Phases: the batch shape and the rows of each step, without repeating text early."""

import pytest

from data_prep.errors import UserError
from pretrain.config.phases import Phase, phase_at, phases_of, ramp_rows
from pretrain.config.run import TeacherRecipe, identity_of
from pretrain.config.train import RampOptions, TrainOptions


def train(steps: int, *phases: dict[str, int]) -> TrainOptions:
    return TrainOptions(
        steps=steps, batch_rows=8, micro_rows=4, row_tokens=128, phases=list(phases)
    )  # type: ignore[arg-type]


def test_no_phases_is_one_phase() -> None:
    """A recipe without phases has one, of the plain keys."""
    (phase,) = phases_of(train(100))
    assert phase == Phase(
        first_step=0, steps=100, row_tokens=128, batch_rows=8, micro_rows=4, first_row=0
    )
    assert [phase.row_of(step) for step in (0, 1, 99)] == [0, 8, 792]


def test_phase_changes_its_keys() -> None:
    """A phase changes the keys that it names, and no others."""
    long = {"steps": 10, "row_tokens": 512, "batch_rows": 2, "micro_rows": 1}
    first, second = phases_of(train(100, {"steps": 90}, long))
    assert (first.row_tokens, first.batch_rows, first.micro_rows) == (128, 8, 4)
    assert (second.row_tokens, second.batch_rows, second.micro_rows) == (512, 2, 1)
    assert [phase_at([first, second], step) for step in (0, 89, 90, 99)] == [
        first, first, second, second,
    ]  # fmt: skip
    assert second.row_of(90) == 0, "rows of another length are other rows"


def test_rows_continue_across_phases() -> None:
    """Rows of one length continue through all phases: no text repeats early."""
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


def test_longest_row_of_all_phases() -> None:
    """The longest row is that of any phase."""
    assert train(100).longest_row == 128
    assert train(100, {"steps": 50, "row_tokens": 512}, {"steps": 50}).longest_row == 512


def test_ramp_reads_every_row_once() -> None:
    """A ramp is phases of growing batches, which read every row once."""
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


def test_ramped_schedule_begins_at_first_stage() -> None:
    """The schedule of a ramped phase begins at its first stage."""
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
def test_ramp_stages_grow(stages: int) -> None:
    """Every stage of a ramp has more rows than the one before."""
    rows = [*ramp_rows(RampOptions(from_rows=3, steps=32, stages=stages), 96), 96]
    assert rows[0] == 3 and rows == sorted(set(rows))
    assert all(number % 3 == 0 for number in rows)


@pytest.mark.parametrize(
    ("batch_rows", "micro_rows", "world", "expected"), [(64, 16, 2, 2), (8, 1, 4, 2), (6, 6, 1, 1)]
)
def test_micro_batches_per_rank(
    batch_rows: int, micro_rows: int, world: int, expected: int
) -> None:
    """The micro-batches of a rank follow from rows, micro-batch and ranks."""
    options = TrainOptions(steps=1, batch_rows=batch_rows, micro_rows=micro_rows)
    assert phases_of(options)[0].micro_batches(world) == expected


@pytest.mark.parametrize(("batch_rows", "micro_rows", "multiple"), [(32, 12, 24), (24, 8, 16)])
def test_indivisible_batch_is_refused(batch_rows: int, micro_rows: int, multiple: int) -> None:
    """A batch that does not divide is refused, with a multiple that would."""
    message = rf"batch_rows {batch_rows} .*micro_rows {micro_rows} times 2 .* of {multiple}\."
    phase = phases_of(TrainOptions(steps=1, batch_rows=batch_rows, micro_rows=micro_rows))[0]
    with pytest.raises(UserError, match=message):
        phase.micro_batches(2)


def test_share_below_a_step_is_left_out() -> None:
    """A phase whose share of a short run is less than a step is left out; the others fill it."""
    shares = [{"share": 0.5}, {"share": 0.1}, {"share": 0.4, "row_tokens": 512}]
    phases = phases_of(train(3, *shares))
    assert [(phase.steps, phase.row_tokens) for phase in phases] == [(2, 128), (1, 512)]


@pytest.mark.parametrize("steps", [10, 33, 250_000])
def test_shares_follow_the_number_of_steps(steps: int) -> None:
    """Phases given as shares fill a run of any length, to the nearest step, in its identity too."""
    shares = [{"share": 0.9}, {"share": 0.1, "row_tokens": 512}]
    first, second = phases_of(train(steps, *shares))  # type: ignore[arg-type]
    assert second.first_step == first.steps == round(0.9 * steps)
    assert first.steps + second.steps == steps
    tree = {name: {"path": name} for name in ("run", "corpus", "tokenizer")}
    options = {"steps": steps, "batch_rows": 8, "micro_rows": 4}
    same = [
        identity_of(TeacherRecipe.model_validate({**tree, "train": {**options, "phases": phases}}))
        for phases in (shares, [{"steps": first.steps}, {"steps": second.steps, "row_tokens": 512}])
    ]
    assert same[0] == same[1]
