"""The keys of `optim`: the optimizer and its learning-rate schedule."""

from typing import Literal

from pydantic import Field, model_validator

from data_prep.config.loader import Options

# Keys that only one choice reads: beside another they would have no effect, so they are refused.
_SERVES = {
    "muon_lr": ("name", "muon"),
    "muon_momentum": ("name", "muon"),
    "warmup_share": ("schedule", "budget"),
    "decay_steps": ("schedule", "warmup_stable_decay"),
    "power": ("schedule", "polynomial"),
}


class OptimOptions(Options):
    """AdamW as BERT uses it, LAMB or Muon; biases and LayerNorm never decay."""

    name: Literal["adamw", "lamb", "muon"] = Field(
        "adamw",
        description="lamb is for batches of many thousand rows (arXiv 1904.00962); muon updates "
        "the layers' matrices and AdamW the rest",
    )
    lr: float = Field(1e-4, gt=0, description="peak learning rate")
    muon_lr: float = Field(
        0.02, gt=0, description="muon: peak rate of the layers' matrices; on the same schedule"
    )
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="muon: Nesterov momentum")
    schedule: Literal["linear", "polynomial", "cosine", "warmup_stable_decay", "budget"] = Field(
        "linear",
        description="how the rate falls after its rise: by rows used, or by the time used of "
        "train.budget_minutes",
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear rise from 0 to the peak")
    warmup_share: float = Field(
        0.0, ge=0, lt=1, description="budget: share of it during which the rate rises"
    )
    decay_from: Literal["warmup", "start"] = Field(
        "warmup",
        description="linear, polynomial, cosine: where the fall counts from; start counts from the "
        "schedule's first step, as Google's BERT and NVIDIA's, so the rate drops after the warm-up",
    )
    decay_steps: int | None = Field(
        None, ge=1, description="warmup_stable_decay: last steps, of the fall; null is a tenth"
    )
    power: float = Field(0.5, gt=0, description="polynomial: rate ~ (share left)^power")
    end_share: float = Field(
        0.0, ge=0, lt=1, description="where the fall ends, as a share of the peak"
    )
    weight_decay: float = Field(0.01, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-6, gt=0)
    clip_norm: float = Field(1.0, gt=0, description="largest global gradient norm")

    @model_validator(mode="after")
    def _every_key_is_used(self) -> "OptimOptions":
        for key, (owner, wanted) in _SERVES.items():
            if key in self.model_fields_set and getattr(self, owner) != wanted:
                raise ValueError(
                    f"{key} serves {owner} {wanted} alone, but {owner} is {getattr(self, owner)}: "
                    "leave out one of them"
                )
        return self

    @model_validator(mode="after")
    def _decay_begins_after_warmup(self) -> "OptimOptions":
        if self.decay_from == "start" and self.schedule in ("warmup_stable_decay", "budget"):
            raise ValueError(
                f"decay_from start serves schedules that fall from the warm-up on, but schedule is "
                f"{self.schedule}: leave out one of them"
            )
        return self

    @model_validator(mode="after")
    def _budget_counts_time(self) -> "OptimOptions":
        if self.schedule == "budget" and self.end_share + self.warmup_steps:
            raise ValueError(
                "schedule budget rises by warmup_share and ends at 0: "
                "leave out warmup_steps and end_share"
            )
        return self
