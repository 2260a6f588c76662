"""The recipes of training runs: every key with its meaning and unit.

A teacher recipe and a student recipe (`distil/config.py`) share most groups; each adds its own.
The keys that decide what a run computes are its identity: a run folder that was started with other
values is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_prep.config.loader import Options
from pretrain.config.model import KernelOptions, ModelOptions
from pretrain.config.optim import OptimOptions
from pretrain.config.train import TrainOptions


class RunOptions(Options):
    """Where the run writes, and how many ranks it expects."""

    path: Path = Field(description="folder of this run: status, metrics, checkpoints")
    world_size: int | None = Field(
        None, ge=1, description="ranks that must be present; null accepts any number"
    )


class CorpusOptions(Options):
    """The corpus to train on, and how it is verified at start."""

    path: Path = Field(description="folder that launch/prepare_data.py made")
    verify: Literal["contents", "sizes"] = Field(
        "contents",
        description="compare every byte with the manifest at start (about 1 s a GB), or sizes only",
    )


class TokenizerOptions(Options):
    """The tokenizer of the corpus."""

    path: Path = Field(description="tokenizer folder; it must be the one the corpus was made with")


class SampleOptions(Options):
    """How documents become training samples."""

    pairs: Literal["next_sentence", "sentence_order", "none"] = Field(
        "next_sentence",
        description="what a sample's two segments are classified by: does B follow A, or are they "
        "swapped (ALBERT, arXiv 1909.11942); `none` makes single segments, as RoBERTa",
    )
    short_share: float = Field(
        0.1, ge=0, le=1, description="share of samples cut to a random shorter length, as in BERT"
    )


class MaskOptions(Options):
    """Which tokens a model must predict, and what replaces them in its input."""

    policy: Literal["uniform", "whole_word", "spans", "adaptive", "sparse"] = Field(
        "uniform", description="how the tokens to predict are chosen; see pretrain/masking/"
    )
    rate: float = Field(0.15, gt=0, lt=1, description="share of ordinary tokens to predict")
    rate_end: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="rate at the last step, linear from `rate`; null keeps it; validation does",
    )
    as_mask: float = Field(0.8, ge=0, le=1, description="share of those shown as [MASK]")
    as_random: float = Field(0.1, ge=0, le=1, description="share shown as a random token")
    bidirectional: bool = Field(
        False, description="show each sample reversed as well and add up both losses"
    )
    chinese_words: bool = Field(
        False,
        description="whole_word, spans: words of Chinese by jieba, slowly, not characters",
    )
    frequency_power: float = Field(
        -0.5, description="adaptive: chance ~ (token's frequency)^this; negative favours rare ones"
    )
    position_power: float = Field(
        0.0, description="adaptive: chance ~ (position in the sample, 0 to 1)^this; 0 ignores it"
    )
    sparse_count: int = Field(8, ge=1, description="sparse: tokens to predict in each sample")
    allowed_tokens: Path | None = Field(
        None, description="sparse: file of the tokens to predict, one a line; null allows all"
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> "MaskOptions":
        if self.as_mask + self.as_random > 1:
            raise ValueError(
                f"as_mask {self.as_mask} and as_random {self.as_random} add up to more than 1"
            )
        return self


class ValidationOptions(Options):
    """How often, and on how much held-out text, the model is evaluated."""

    every_steps: int = Field(500, ge=1, description="steps between evaluations")
    rows: int = Field(
        512,
        ge=1,
        description="fixed rows of the validation split, fixed masks, as long as the last phase's",
    )


class CheckpointOptions(Options):
    """How often the run is saved, and how many checkpoints are kept."""

    every_steps: int = Field(1000, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="newest checkpoints to keep")


class LogOptions(Options):
    """How often progress is logged."""

    every_steps: int = Field(50, ge=1, description="steps between lines, scalars and metrics")


class LoaderOptions(Options):
    """Worker processes and prefetching; the batches are the same for any choice."""

    workers: int | None = Field(
        None, ge=0, description="processes a rank; null is 2 on a GPU and 0, itself, on a CPU"
    )
    prefetch: int = Field(4, ge=1, description="steps that all workers of a rank make ahead")


class DeepSpeedOptions(Options):
    """The DeepSpeed JSON file: ZeRO stage, offload, communication."""

    config: Path = Field(
        Path("ds_configs/zero1_fp32.json"), description="ZeRO stage, offload and communication"
    )


class RunRecipe(Options):
    """What teacher and student runs have in common."""

    run: RunOptions
    corpus: CorpusOptions
    tokenizer: TokenizerOptions
    train: TrainOptions
    samples: SampleOptions = SampleOptions()
    mask: MaskOptions = MaskOptions()
    loader: LoaderOptions = LoaderOptions()
    optim: OptimOptions = OptimOptions()
    validation: ValidationOptions = ValidationOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    log: LogOptions = LogOptions()
    kernels: KernelOptions = KernelOptions()
    deepspeed: DeepSpeedOptions = DeepSpeedOptions()

    @property
    def stated_positions(self) -> int | None:
        """Longest input of the model; None where another model decides it as well."""
        return None

    @model_validator(mode="after")
    def _schedule_fits(self) -> "RunRecipe":
        optim, steps = self.optim, self.train.steps
        # The first schedule ends where a later phase begins one of its own.
        phases = self.train.all_phases
        others = [n for n, phase in enumerate(phases) if n and phase.lr is not None]
        first = sum(phase.steps for phase in phases[: others[0]]) if others else steps
        if optim.warmup_steps >= first:
            end = "train.steps" if first == steps else "the first step with an lr of its own,"
            raise ValueError(f"optim.warmup_steps {optim.warmup_steps} must be below {end} {first}")
        if optim.decay_steps is not None and optim.warmup_steps + optim.decay_steps > steps:
            raise ValueError(
                f"optim.warmup_steps {optim.warmup_steps} and optim.decay_steps "
                f"{optim.decay_steps} are more than train.steps {steps}"
            )
        if optim.schedule == "budget" and self.train.budget_minutes is None:
            raise ValueError("optim.schedule budget needs train.budget_minutes")
        return self


class TeacherRecipe(RunRecipe):
    """The recipe of `launch/train_teacher.py`: BERT with MLM and NSP."""

    model: ModelOptions = ModelOptions()

    @property
    def positions(self) -> int | None:
        """Longest input of the model; without a key the longest rows, or None for the start's."""
        if self.model.start is not None:
            return self.model.positions
        return self.model.positions or self.train.longest_row

    @property
    def stated_positions(self) -> int | None:
        """The positions, unless a start has trained some of them."""
        return None if self.model.start else self.positions

    @model_validator(mode="after")
    def _rows_fit_positions(self) -> "TeacherRecipe":
        # Those of a start are known once it is opened, see pretrain/start/shape.py.
        if self.positions is not None and self.train.longest_row > self.positions:
            raise ValueError(
                f"train.row_tokens {self.train.longest_row} exceeds model.positions "
                f"{self.positions}"
            )
        return self


# Groups and keys that may differ when a run is continued: they change how fast, how often
# and where, not what is computed.
_FREE_GROUPS = ("log", "checkpoint", "validation", "deepspeed", "loader", "kernels")
_FREE_KEYS = ("run.path", "run.world_size", "corpus.path", "corpus.verify", "tokenizer.path",
              "teacher.path", "teacher.paths", "teacher.sharded", "train.micro_rows",
              "train.max_minutes", "train.activation_checkpointing", "model.shape",
              "model.vocabulary")  # fmt: skip
# Old names of keys, in the identities that earlier versions stored.
_RENAMED_KEYS = {
    "train.recompute": "train.activation_checkpointing",
    "teacher.signal": "teacher.cache",
}


# Keys that came later, with the value that stands for what earlier versions did.
_ADDED_KEYS = {"optim.decay_from": "warmup"}


def with_current_keys(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored identity with the keys of today."""
    renamed = {_RENAMED_KEYS.get(key, key): value for key, value in identity.items()}
    return _ADDED_KEYS | renamed


def identity_of(recipe: RunRecipe) -> dict[str, Any]:
    """Return the dotted keys and values that decide what a run computes."""
    flat: dict[str, Any] = {}
    for group, keys in recipe.model_dump(mode="json").items():
        if not isinstance(keys, dict):
            flat[group] = keys
        elif group not in _FREE_GROUPS:
            flat.update({f"{group}.{key}": value for key, value in keys.items()})
    if isinstance(recipe, TeacherRecipe):
        flat["model.positions"] = recipe.positions
        if recipe.model.start is not None:
            # Cards show it, and folders of a machine are no part of it.
            flat["model.start"] = recipe.model.start.name
    flat["train.phases"] = [
        phase.model_dump(mode="json", exclude={"micro_rows", "share"})
        for phase in (recipe.train.all_phases if recipe.train.phases else [])
    ]
    return {key: value for key, value in flat.items() if key not in _FREE_KEYS}
