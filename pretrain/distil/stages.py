"""Stages of a student's run: layers first and then predictions, or a teacher first and then none.

Which stage a step lies in, and what each objective weighs in it, follows from its number alone, so
a run that is continued needs no record of either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.distil.loss_config import (
    Objective,
    SoftTargets,
    StageOptions,
    value_at,
    weight_at,
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps that share a list of objectives."""

    first_step: int
    steps: int
    objectives: tuple[Objective, ...]

    def weights(self, step: int) -> list[float]:
        """Return the weight of each objective in a step of this stage."""
        place = step - self.first_step
        return [weight_at(objective, place, self.steps) for objective in self.objectives]

    def temperature(self, objective: SoftTargets, step: int) -> float:
        """Return the temperature of soft targets in a step of this stage."""
        course, place = objective.temperature_schedule, step - self.first_step
        return value_at(objective.temperature, course, place, self.steps)


def stages_of(options: Sequence[StageOptions]) -> list[Stage]:
    """Return the stages of a run in order; objectives that never have a weight are left out."""
    stages: list[Stage] = []
    step = 0
    for option in options:
        kept = tuple(o for o in option.objectives if o.weight or o.schedule)
        stages.append(Stage(first_step=step, steps=option.steps, objectives=kept))
        step += option.steps
    return stages


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """Return the stage of a step, counted from 0."""
    return next(stage for stage in reversed(stages) if stage.first_step <= step)
