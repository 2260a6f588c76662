"""What a student learns, and when: the keys `objectives` and `stages` of its recipe.

An objective is named by its `kind`, which decides its other keys. Layers are counted as their
outputs are: 0 is the embeddings, 1 the first layer, -1 the last one.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_prep.config.loader import Options


class LinearSchedule(Options):
    """How a number moves during a stage: on a line, from the value beside it."""

    to: float = Field(ge=0, description="value at the end")
    steps: int | None = Field(
        None, ge=1, description="steps until then; null is the whole stage, to its last step"
    )


def value_at(start: float, course: LinearSchedule | None, step: int, steps: int) -> float:
    """Return the value of a number in a step of a stage, counted from its first."""
    if course is None:
        return start
    last = (course.steps or steps) - 1
    return course.to if step >= last else start + (course.to - start) * step / last


class _Objective(Options):
    """What every objective has."""

    weight: float = Field(1.0, ge=0, description="its share in the loss")
    schedule: LinearSchedule | None = Field(None, description="how the weight moves; null keeps it")


class _LayerObjective(_Objective):
    """What is compared between a layer of the student and one of the teacher, or several pairs."""

    student_layer: int | list[int] = Field(-1, description="one layer, or several, in order")
    teacher_layer: int | list[int] = Field(-1, description="as many")

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Student and teacher layers as the recipe has them."""
        own, theirs = (
            [layers] if isinstance(layers, int) else layers
            for layers in (self.student_layer, self.teacher_layer)
        )
        return list(zip(own, theirs, strict=True))

    @model_validator(mode="after")
    def _as_many_layers(self) -> "_LayerObjective":
        own, theirs = self.student_layer, self.teacher_layer
        sizes = [1 if isinstance(layers, int) else len(layers) for layers in (own, theirs)]
        if sizes[0] != sizes[1] or not sizes[0]:
            raise ValueError(
                f"student_layer {own} and teacher_layer {theirs} must name as many layers"
            )
        return self


class _Projected(_Objective):
    """What compares states that may differ in width."""

    projection: bool = Field(
        True, description="learn a linear map of the student's states where widths differ"
    )


class SoftTargets(_Objective):
    """The student's distribution over words follows the teacher's (arXiv 1503.02531)."""

    kind: Literal["soft_targets"]
    temperature: float = Field(1.0, gt=0, description="both are softened by it; T squared included")
    temperature_schedule: LinearSchedule | None = Field(
        None, description="how the temperature moves"
    )
    divergence: Literal["forward", "reverse", "symmetric"] = Field(
        "forward", description="KL(teacher, student), the other way round, or the mean of both"
    )
    at: Literal["masked", "all"] = Field(
        "masked", description="masked tokens, or all of them as in DistilBERT's code: dear"
    )

    @model_validator(mode="after")
    def _temperature_stays_above_0(self) -> "SoftTargets":
        if self.temperature_schedule is not None and not self.temperature_schedule.to:
            raise ValueError(
                "temperature_schedule ends at 0, which divides no logits: let it end above 0"
            )
        return self


class HardMlm(_Objective):
    """The masked words themselves, as BERT learns them."""

    kind: Literal["hard_mlm"]


class NextSentence(_Objective):
    """The next-sentence label, as BERT learns it; the student then has that head."""

    kind: Literal["next_sentence"]


class HiddenCosine(_LayerObjective, _Projected):
    """Hidden states point the same way (arXiv 1910.01108)."""

    kind: Literal["hidden_cosine"]


class HiddenMse(_LayerObjective, _Projected):
    """Hidden states are equal (arXiv 1909.10351)."""

    kind: Literal["hidden_mse"]


class Embeddings(_Projected):
    """The outputs of the embeddings are equal (arXiv 1909.10351)."""

    kind: Literal["embeddings"]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The embeddings of both."""
        return [(0, 0)]


class AttentionScores(_LayerObjective):
    """Attention scores before the softmax are equal, head by head (arXiv 1909.10351)."""

    kind: Literal["attention_scores"]


class AttentionDistributions(_LayerObjective):
    """Attention weights follow the teacher's, head by head (arXiv 2002.10957, 2004.02984)."""

    kind: Literal["attention_distributions"]


class ValueRelations(_LayerObjective):
    """What values have in common follows the teacher's, head by head (arXiv 2002.10957)."""

    kind: Literal["value_relations"]


class Relations(_LayerObjective):
    """Query-query, key-key and value-value relations follow the teacher's (arXiv 2012.15828)."""

    kind: Literal["relations"]
    relations: list[Literal["qq", "kk", "vv"]] = Field(
        ["qq", "kk", "vv"], min_length=1, description="which of them, each with the same weight"
    )
    heads: int = Field(
        12, ge=1, description="relation heads; they divide both widths, whatever heads those have"
    )

    @model_validator(mode="after")
    def _each_once(self) -> "Relations":
        if len(set(self.relations)) < len(self.relations):
            raise ValueError(f"relations {self.relations} must name each of them once")
        return self


class FeatureMaps(_LayerObjective, _Projected):
    """Feature maps are equal after a norm, and so are their means and variances (2004.02984)."""

    kind: Literal["feature_maps"]
    map_weight: float = Field(1.0, ge=0, description="of the normalised maps")
    mean_weight: float = Field(0.0, ge=0, description="of the squared gap of means")
    variance_weight: float = Field(0.0, ge=0, description="of the gap of variances")

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
    """A stretch of a student's run with objectives of its own."""

    steps: int = Field(ge=1, description="optimizer steps of this stage")
    objectives: list[Objective] = Field(min_length=1, description="what is learned in it")

    @model_validator(mode="after")
    def _something_is_learned(self) -> "StageOptions":
        # Weights are above 0 in between if they are at one end: they move on lines.
        for place, step in (("first", 0), ("last", self.steps - 1)):
            if not any(weight_at(objective, step, self.steps) for objective in self.objectives):
                raise ValueError(
                    f"all weights are 0 in the {place} step of a stage, so there is nothing to "
                    "learn: give an objective a weight then, or its schedule an end above 0"
                )
        return self

    @model_validator(mode="after")
    def _schedules_end_in_time(self) -> "StageOptions":
        for objective in self.objectives:
            courses = objective.schedule, getattr(objective, "temperature_schedule", None)
            for course in courses:
                if course is not None and (course.steps or 1) > self.steps:
                    raise ValueError(
                        f"a schedule of {objective.kind} takes {course.steps} steps, but its stage "
                        f"has {self.steps}: shorten it, or leave its steps out"
                    )
        return self
