"""Phases: most steps on short rows, the last ones on long rows, in one run; batches that grow.

BERT trains 90 % of its steps at length 128 and the rest at 512 (arXiv 1810.04805, appendix A.2).
A ramp of the batch size is phases too, one for each of its stages.
The phase and the rows of a step are a function of its number alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from data_prep.errors import UserError
from pretrain.config.train import CountedPhase, RampOptions, TrainOptions


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Consecutive steps with one batch shape."""

    first_step: int
    steps: int
    row_tokens: int
    batch_rows: int
    micro_rows: int
    first_row: int  # among all rows of its length
    lr: float | None = None  # peak of a schedule that begins here, see optim/lr_schedule.py
    warmup_steps: int = 0  # of that schedule

    def row_of(self, step: int) -> int:
        """Return the number of the first row of a step."""
        return self.first_row + (step - self.first_step) * self.batch_rows

    def micro_batches(self, world_size: int) -> int:
        """Return the micro-batches that a rank computes in each step.

        Raises:
            UserError: when the global batch does not divide over ranks and micro-batches.
        """
        if self.batch_rows % (self.micro_rows * world_size):
            raise UserError(
                f"train.batch_rows {self.batch_rows} is not divisible by train.micro_rows "
                f"{self.micro_rows} times {world_size} rank(s): choose a multiple of "
                f"{self.micro_rows * world_size}."
            )
        return self.batch_rows // (self.micro_rows * world_size)


def phases_of(train: TrainOptions) -> list[Phase]:
    """Return the phases of a run in order; one of them where the recipe names none.

    A phase whose rows are as long as those of an earlier one continues where that one stopped, so
    that a change of the batch size repeats no text.
    """
    phases: list[Phase] = []
    rows: dict[int, int] = {}
    step = 0
    for options in _with_ramp(train):
        length = options.row_tokens or train.row_tokens
        phase = Phase(
            first_step=step,
            steps=options.steps,
            row_tokens=length,
            batch_rows=options.batch_rows or train.batch_rows,
            micro_rows=options.micro_rows or train.micro_rows,
            first_row=rows.get(length, 0),
            lr=options.lr,
            warmup_steps=options.warmup_steps,
        )
        phases.append(phase)
        step += phase.steps
        rows[length] = phase.row_of(step)
    return phases


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """Return the phase of a step, counted from 0."""
    return next(phase for phase in reversed(phases) if phase.first_step <= step)


def check_positions_reached(positions: int, reached: int, key: str, rows: int) -> None:
    """Refuse a model with position embeddings that are published untrained.

    Args:
        positions: of the model.
        reached: how many are trained at the end of the run, those trained before it included.
        key: of the recipe that gives the positions.
        rows: tokens of the longest rows of the run.

    Raises:
        UserError: with both remedies.
    """
    if reached < positions:
        raise UserError(
            f"The model would have {positions} positions, but training reaches {reached} (the "
            f"longest rows have {rows} tokens), so positions {reached} to {positions - 1} would be "
            f"published untrained: set {key}={reached}, or add a phase with rows of "
            f"{positions} to train.phases."
        )


def _with_ramp(train: TrainOptions) -> list[CountedPhase]:
    """Return the phases with the first one cut into the stages of the ramp and what is left."""
    first, *others = train.all_phases
    if train.ramp is None:
        return [first, *others]
    full = first.batch_rows or train.batch_rows
    sizes = ramp_rows(train.ramp, full)
    edges = [train.ramp.steps * stage // len(sizes) for stage in range(len(sizes) + 1)]
    lengths = [end - begin for begin, end in pairwise(edges)] + [first.steps - train.ramp.steps]
    stages = [
        first.model_copy(update={"steps": steps, "batch_rows": rows, "lr": None, "warmup_steps": 0})
        for steps, rows in zip(lengths, [*sizes, full], strict=True)
    ]
    own_schedule = {"lr": first.lr, "warmup_steps": first.warmup_steps}
    return [stages[0].model_copy(update=own_schedule), *stages[1:], *others]


def ramp_rows(ramp: RampOptions, full: int) -> list[int]:
    """Return the batch of each stage: on a line to the full one, in multiples of the first."""
    growth = full // ramp.from_rows - 1
    return [ramp.from_rows * (1 + growth * stage // ramp.stages) for stage in range(ramp.stages)]
