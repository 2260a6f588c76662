"""The keys of `train`: steps, batches, precision, phases."""

from itertools import accumulate, pairwise
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from data_prep.config.loader import Options


class PhaseOptions(Options):
    """A phase of a run; keys that it leaves out are those of `train`."""

    steps: int | None = Field(None, ge=1, description="optimizer steps of this phase")
    share: float | None = Field(
        None, gt=0, le=1, description="the same as a share of train.steps, instead of steps"
    )
    row_tokens: int | None = Field(None, ge=16, description="length of a packed row, tokens")
    batch_rows: int | None = Field(None, ge=1, description="rows of one step, over all ranks")
    micro_rows: int | None = Field(None, ge=1, description="rows one rank computes at a time")
    lr: float | None = Field(
        None,
        gt=0,
        description="peak of a new schedule from this phase on; null continues the last one",
    )
    warmup_steps: int = Field(0, ge=0, description="warm-up steps of that schedule; only with `lr`")

    @model_validator(mode="after")
    def _has_one_length(self) -> "PhaseOptions":
        if (self.steps is None) == (self.share is None):
            raise ValueError("give a phase either steps or a share of train.steps")
        return self

    @model_validator(mode="after")
    def _warmup_has_schedule(self) -> "PhaseOptions":
        if self.warmup_steps and self.lr is None:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} need a schedule of their own: give lr"
            )
        return self


class CountedPhase(PhaseOptions):
    """A phase whose steps are known."""

    steps: int


class RampOptions(Options):
    """A batch that grows during the first steps of a run, in equal stages."""

    from_rows: int = Field(ge=1, description="rows of the first steps; later ones are multiples")
    steps: int = Field(ge=1, description="steps until the full batch; part of train.steps")
    stages: int = Field(ge=1, description="sizes before the full one, each for as many steps")


class TrainOptions(Options):
    """How long, on how much at a time, and in which precision the model is trained."""

    steps: int = Field(ge=1, description="optimizer steps of the whole run")
    seed: int = Field(
        0, ge=0, description="seed of order, pairs, masks, initial weights and dropout"
    )
    batch_rows: int = Field(ge=1, description="rows of one optimizer step, over all ranks")
    row_tokens: int = Field(128, ge=16, description="length of a packed row, tokens")
    micro_rows: int = Field(ge=1, description="rows one rank computes at a time")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of the forward and backward pass; master weights are always fp32"
    )
    activation_checkpointing: bool | Annotated[int, Field(ge=0)] = Field(
        False,
        validation_alias=AliasChoices("activation_checkpointing", "recompute"),
        description="compute activations a second time in the backward pass instead of storing "
        "them: true for all layers, or how many of the first",
    )
    tf32: bool = Field(
        False, description="fp32 on a GPU: matrix products with 10 bits of mantissa, much faster"
    )
    max_minutes: float | None = Field(
        None, gt=0, description="stop with a checkpoint after this long; null never stops early"
    )
    budget_minutes: float | None = Field(
        None,
        gt=0,
        description="the run is done after training this long, over all restarts, or at its last "
        "step; null counts steps alone",
    )
    # `Annotated` keeps a list of groups from being taken for a group of keys.
    phases: list[Annotated[PhaseOptions, "one phase"]] = Field(
        [],
        description="parts of the run in order, each with its steps and the keys it changes: "
        "row_tokens, batch_rows, micro_rows, lr, warmup_steps; empty is a run of one shape. "
        "Shares follow another train.steps, where one that is less than a step is left out",
    )
    ramp: Annotated[RampOptions, "one value"] | None = Field(
        None, description="how the batch grows at first: {from_rows, steps, stages}; null does not"
    )

    @property
    def all_phases(self) -> list[CountedPhase]:
        """The phases with their steps, or the whole run as the only one."""
        if not self.phases:
            return [CountedPhase(steps=self.steps)]
        shares = [phase.share or 0.0 for phase in self.phases]
        edges = [round(self.steps * share) for share in accumulate(shares, initial=0.0)]
        counts = [
            end - begin if phase.steps is None else phase.steps
            for phase, (begin, end) in zip(self.phases, pairwise(edges), strict=True)
        ]
        return [
            CountedPhase.model_construct(**{**dict(phase), "steps": steps, "share": None})
            for phase, steps in zip(self.phases, counts, strict=True)
            if steps or phase.share is None
        ]

    @property
    def longest_row(self) -> int:
        """Tokens of the longest rows of the run."""
        return max(phase.row_tokens or self.row_tokens for phase in self.all_phases)

    @model_validator(mode="after")
    def _phases_fill_the_run(self) -> "TrainOptions":
        if len({phase.steps is None for phase in self.phases}) > 1:
            raise ValueError("give steps to all phases, or a share to all")
        total = sum(phase.steps for phase in self.all_phases)
        if total != self.steps:
            raise ValueError(
                f"the phases have {total} steps together, but train.steps is {self.steps}"
            )
        for number, phase in enumerate(self.all_phases):
            if phase.steps <= phase.warmup_steps:
                raise ValueError(
                    f"phase {number} has warmup_steps {phase.warmup_steps}, which must be below "
                    f"its steps {phase.steps}"
                )
        return self

    @model_validator(mode="after")
    def _ramp_fits(self) -> "TrainOptions":
        if self.ramp is None:
            return self
        first, ramp = self.all_phases[0], self.ramp
        rows = first.batch_rows or self.batch_rows
        most = rows // ramp.from_rows - 1
        if rows % ramp.from_rows or ramp.stages > most:
            raise ValueError(
                f"a ramp from {ramp.from_rows} rows in {ramp.stages} stages does not lead to "
                f"{rows}: from_rows must divide it, and leave room for as many multiples"
            )
        if not ramp.stages <= ramp.steps < first.steps:
            raise ValueError(
                f"a ramp of {ramp.steps} steps must have at least one for each of its "
                f"{ramp.stages} stages, and end within the first {first.steps} steps"
            )
        return self

    @model_validator(mode="after")
    def _tf32_is_fp32(self) -> "TrainOptions":
        if self.tf32 and self.precision != "fp32":
            raise ValueError(f"tf32 is a way to compute in fp32, not in {self.precision}")
        return self
