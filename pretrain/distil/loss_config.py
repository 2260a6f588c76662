"""Objectives of a student and their stages: the keys `objectives` and `stages` of its recipe.

The `kind` of an objective decides its other keys. Layers are counted as their
outputs are: 0 is the embeddings, 1 the first layer, -1 the last one.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_prep.config.loader import Options


class LinearSchedule(Options):
    """A linear schedule over a stage, from the initial value of the number it belongs to."""

    to: float = Field(ge=0, description="final value")
    steps: int | None = Field(
        None, ge=1, description="steps until the final value; null is the whole stage"
    )


def value_at(start: float, schedule: LinearSchedule | None, step: int, steps: int) -> float:
    """Return the scheduled value in a step of a stage of `steps` steps, counted from its first."""
    if schedule is None:
        return start
    last = (schedule.steps or steps) - 1
    return schedule.to if step >= last else start + (schedule.to - start) * step / last


class _Objective(Options):
    """Keys of every objective."""

    weight: float = Field(1.0, ge=0, description="factor of this objective in the loss")
    schedule: LinearSchedule | None = Field(
        None, description="linear schedule of the weight; null keeps it constant"
    )


class _LayerObjective(_Objective):
    """Keys of a comparison of student layers with teacher layers, pair by pair."""

    student_layer: int | list[int] = Field(-1, description="one layer, or a list")
    teacher_layer: int | list[int] = Field(
        -1, description="one layer, or a list of the same length"
    )

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Student and teacher layers as in the recipe, negative ones unresolved."""
        student, teacher = (
            [layers] if isinstance(layers, int) else layers
            for layers in (self.student_layer, self.teacher_layer)
        )
        return list(zip(student, teacher, strict=True))

    @model_validator(mode="after")
    def _lists_are_equally_long(self) -> "_LayerObjective":
        student, teacher = self.student_layer, self.teacher_layer
        sizes = [1 if isinstance(layers, int) else len(layers) for layers in (student, teacher)]
        if sizes[0] != sizes[1] or not sizes[0]:
            raise ValueError(
                f"student_layer {student} and teacher_layer {teacher} must name the same number "
                "of layers"
            )
        return self


class _Projected(_Objective):
    """Keys of a comparison of states that may differ in width."""

    projection: bool = Field(
        True, description="train a linear map of the student's states where widths differ"
    )


class SoftTargets(_Objective):
    """KL divergence of the student's token distribution from the teacher's (arXiv 1503.02531)."""

    kind: Literal["soft_targets"]
    temperature: float = Field(
        1.0, gt=0, description="T divides both logits; the loss includes T squared"
    )
    temperature_schedule: LinearSchedule | None = Field(
        None, description="linear schedule of the temperature"
    )
    divergence: Literal["forward", "reverse", "symmetric"] = Field(
        "forward", description="KL(teacher, student), KL(student, teacher), or the mean of both"
    )
    at: Literal["masked", "all"] = Field(
        "masked",
        description="masked tokens, or all of them as in DistilBERT's code, which costs more",
    )

    @model_validator(mode="after")
    def _temperature_stays_above_0(self) -> "SoftTargets":
        if self.temperature_schedule is not None and not self.temperature_schedule.to:
            raise ValueError(
                "temperature_schedule ends at 0, which cannot divide logits: set its end above 0"
            )
        return self


class HardMlm(_Objective):
    """BERT's MLM loss (arXiv 1810.04805)."""

    kind: Literal["hard_mlm"]


class NextSentence(_Objective):
    """BERT's NSP loss (arXiv 1810.04805); the student then has an NSP head."""

    kind: Literal["next_sentence"]


class HiddenCosine(_LayerObjective, _Projected):
    """Cosine distance of hidden states (arXiv 1910.01108)."""

    kind: Literal["hidden_cosine"]


class HiddenMse(_LayerObjective, _Projected):
    """MSE of hidden states (arXiv 1909.10351, equation 8)."""

    kind: Literal["hidden_mse"]


class Embeddings(_Projected):
    """MSE of the outputs of the embeddings (arXiv 1909.10351, equation 9)."""

    kind: Literal["embeddings"]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Layer 0 of both models, the embeddings."""
        return [(0, 0)]


class AttentionScores(_LayerObjective):
    """MSE of attention scores before the softmax, head by head (arXiv 1909.10351, equation 7)."""

    kind: Literal["attention_scores"]


class AttentionDistributions(_LayerObjective):
    """KL divergence of attention weights, head by head (arXiv 2002.10957, 2004.02984)."""

    kind: Literal["attention_distributions"]


class ValueRelations(_LayerObjective):
    """KL divergence of value relations, head by head (arXiv 2002.10957, section 3.2)."""

    kind: Literal["value_relations"]


class Relations(_LayerObjective):
    """KL divergence of query, key and value self-relations (arXiv 2012.15828, section 3.1)."""

    kind: Literal["relations"]
    relations: list[Literal["qq", "kk", "vv"]] = Field(
        ["qq", "kk", "vv"], min_length=1, description="which relations, summed with equal weights"
    )
    heads: int = Field(
        12,
        ge=1,
        description="relation heads; must divide both widths, independent of attention heads",
    )

    @model_validator(mode="after")
    def _each_once(self) -> "Relations":
        if len(set(self.relations)) < len(self.relations):
            raise ValueError(f"relations {self.relations} must name each of them once")
        return self


class FeatureMaps(_LayerObjective, _Projected):
    """MobileBERT's feature map transfer, decomposed (arXiv 2004.02984, section 3.4)."""

    kind: Literal["feature_maps"]
    map_weight: float = Field(1.0, ge=0, description="weight of the normalised maps")
    mean_weight: float = Field(0.0, ge=0, description="weight of the squared difference of means")
    variance_weight: float = Field(0.0, ge=0, description="weight of the difference of variances")

    @model_validator(mode="after")
    def _something_is_compared(self) -> "FeatureMaps":
        if not (self.map_weight or self.mean_weight or self.variance_weight):
            raise ValueError(
                "map_weight, mean_weight and variance_weight are all 0: give one of them a weight"
            )
        return self


LayerObjective = (
    HiddenCosine
    | HiddenMse
    | Embeddings
    | AttentionScores
    | AttentionDistributions
    | ValueRelations
    | Relations
    | FeatureMaps
)
ProjectedObjective = HiddenCosine | HiddenMse | Embeddings | FeatureMaps
AttentionObjective = AttentionScores | AttentionDistributions | ValueRelations | Relations
Objective = Annotated[
    SoftTargets | HardMlm | NextSentence | LayerObjective, Field(discriminator="kind")
]

# DistilBERT (arXiv 1910.01108); weights and temperature from its published code.
DISTILBERT: list[Objective] = [
    SoftTargets(kind="soft_targets", weight=5.0, temperature=2.0),
    HardMlm(kind="hard_mlm", weight=2.0),
    HiddenCosine(kind="hidden_cosine", weight=1.0),
]


def weight_at(objective: Objective, step: int, steps: int) -> float:
    """Return the weight of an objective in a step of its stage, counted from its first."""
    return value_at(objective.weight, objective.schedule, step, steps)


class StageOptions(Options):
    """Consecutive steps of a student's run with their own objectives."""

    steps: int = Field(ge=1, description="optimizer steps of this stage")
    objectives: list[Objective] = Field(min_length=1, description="objectives of this stage")

    @model_validator(mode="after")
    def _some_weight_is_positive(self) -> "StageOptions":
        # Schedules are linear: weights that are above 0 at both ends are above 0 in between.
        for name, step in (("first", 0), ("last", self.steps - 1)):
            if not any(weight_at(objective, step, self.steps) for objective in self.objectives):
                raise ValueError(
                    f"all weights are 0 in the {name} step of a stage, so nothing is trained: give "
                    "an objective a weight there, or its schedule an end above 0"
                )
        return self

    @model_validator(mode="after")
    def _schedules_end_in_time(self) -> "StageOptions":
        for objective in self.objectives:
            schedules = objective.schedule, getattr(objective, "temperature_schedule", None)
            for schedule in schedules:
                if schedule is not None and (schedule.steps or 1) > self.steps:
                    raise ValueError(
                        f"a schedule of {objective.kind} takes {schedule.steps} steps, but its "
                        f"stage has {self.steps}: shorten it, or leave its steps out"
                    )
        return self
