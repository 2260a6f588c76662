"""Phases of length: most steps on short rows, the last ones on long rows, in one run.

BERT trains 90 % of its steps at length 128 and the rest at 512 (arXiv 1810.04805, appendix A.2).
Which phase a step lies in, and which rows it takes, follows from its number alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.errors import UserError
from pretrain.config import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Steps that have one shape of batch."""

    first_step: int
    steps: int
    row_tokens: int
    batch_rows: int
    micro_rows: int
    first_row: int  # where it begins among all rows of its length

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

    A phase whose rows are as long as those of an earlier one goes on where that one stopped, so
    that no text is seen again early because the size of the batch has changed.
    """
    phases: list[Phase] = []
    rows: dict[int, int] = {}
    step = 0
    for options in train.all_phases:
        length = options.row_tokens or train.row_tokens
        phase = Phase(
            first_step=step,
            steps=options.steps,
            row_tokens=length,
            batch_rows=options.batch_rows or train.batch_rows,
            micro_rows=options.micro_rows or train.micro_rows,
            first_row=rows.get(length, 0),
        )
        phases.append(phase)
        step += phase.steps
        rows[length] = phase.row_of(step)
    return phases


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """Return the phase of a step, counted from 0."""
    return next(phase for phase in reversed(phases) if phase.first_step <= step)
