"""The recipe of a student: teacher, shape, initial weights, objectives and stages."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from data_prep.config.loader import Options
from pretrain.config.run import RunRecipe
from pretrain.distil.loss_config import (
    DISTILBERT,
    LayerObjective,
    NextSentence,
    Objective,
    StageOptions,
)


class TeacherOptions(Options):
    """One teacher, or several whose predictions are averaged."""

    path: Path | None = Field(
        None,
        description="a run folder, an export, a checkpoint of transformers, or its name on the hub",
    )
    paths: list[Path] = Field(
        [], description="several teachers instead of one; their probabilities are averaged"
    )
    cache: Path | None = Field(
        None,
        validation_alias=AliasChoices("cache", "signal"),  # `signal` in earlier recipes
        description="folder of cached soft targets, made by launch/write_teacher_cache.py, to use "
        "instead of the teacher's logits; null computes logits",
    )
    sharded: bool = Field(
        False,
        description="shard the teacher's layers over the ranks and gather one at a time, for one "
        "that is too large for a device (embeddings and heads stay whole); same outputs",
    )

    @property
    def all_paths(self) -> list[Path]:
        """Paths of all teachers."""
        return self.paths or ([] if self.path is None else [self.path])

    @model_validator(mode="after")
    def _one_or_several(self) -> "TeacherOptions":
        if (self.path is None) == (not self.paths):
            raise ValueError("give path for one teacher, or paths for several")
        if self.cache is not None and self.paths:
            raise ValueError("cache holds the soft targets of one teacher: give path, not paths")
        return self


class StudentOptions(Options):
    """The student's shape, where it differs from its teacher's, and its initial weights."""

    layers: int | None = Field(
        None,
        ge=1,
        description="number of layers; null is the length of `init`, else half of the teacher's",
    )
    width: int | None = Field(None, ge=8, description="hidden size; null is the teacher's")
    heads: int | None = Field(None, ge=1, description="attention heads; null is the teacher's")
    feed_forward: int | None = Field(
        None, ge=8, description="width inside the feed-forward block; null is the teacher's"
    )
    positions: int | None = Field(
        None, ge=16, description="longest input of the student, tokens; null is the teacher's"
    )
    init: Literal["uniform", "lower", "upper", "random"] | list[int] = Field(
        "uniform",
        description="teacher layers to copy: evenly spread, the first, the last, or a list "
        "counted from 0; or random weights",
    )
    format: Literal["bert", "distilbert"] = Field(
        "bert", description="published format; distilbert has no token types and no pooler"
    )

    @model_validator(mode="after")
    def _list_fits_layers(self) -> "StudentOptions":
        if isinstance(self.init, list):
            if not self.init:
                raise ValueError("init names no layers: name at least one")
            if self.layers not in (None, len(self.init)):
                raise ValueError(f"init names {len(self.init)} layers, but layers is {self.layers}")
        return self


class StudentRecipe(RunRecipe):
    """`launch/distill_student.py`: a smaller BERT, distilled from one or several teachers."""

    teacher: TeacherOptions
    student: StudentOptions = StudentOptions()
    objectives: list[Objective] = Field(
        DISTILBERT,
        min_length=1,
        description="losses, as a list of {kind, weight, ...}, see pretrain/distil/loss_config.py; "
        "null is DistilBERT's three, or those of `stages`",
    )
    # `Annotated` prevents a list of groups from being parsed as one group of keys.
    stages: list[Annotated[StageOptions, "one stage"]] = Field(
        [], description="stages of the run in order, each with its steps and its objectives"
    )

    @property
    def all_stages(self) -> list[StageOptions]:
        """The stages, or the whole run as a single stage."""
        return self.stages or [StageOptions(steps=self.train.steps, objectives=self.objectives)]

    @model_validator(mode="before")
    @classmethod
    def _drop_null_objectives(cls, tree: Any) -> Any:
        """Treat null as not given, so that an override with stages can remove a recipe's list."""
        if isinstance(tree, dict) and tree.get("objectives", ()) is None:
            return {key: value for key, value in tree.items() if key != "objectives"}
        return tree

    @model_validator(mode="after")
    def _stages_fill_the_run(self) -> "StudentRecipe":
        if self.stages and "objectives" in self.model_fields_set:
            raise ValueError("each stage has its own objectives: leave out those of the run")
        total = sum(stage.steps for stage in self.all_stages)
        if total != self.train.steps:
            raise ValueError(
                f"the stages have {total} steps together, but train.steps is {self.train.steps}"
            )
        return self

    @model_validator(mode="after")
    def _several_teachers_give_soft_targets(self) -> "StudentRecipe":
        if not self.teacher.paths:
            return self
        for objective in (o for stage in self.all_stages for o in stage.objectives):
            if isinstance(objective, LayerObjective):
                raise ValueError(
                    f"teacher.paths averages the predictions of several teachers, which share no "
                    f"layers for {objective.kind}: use soft_targets, or one teacher.path"
                )
        return self

    @model_validator(mode="after")
    def _next_sentence_has_pairs(self) -> "StudentRecipe":
        has_nsp = any(isinstance(o, NextSentence) for s in self.all_stages for o in s.objectives)
        if has_nsp and self.samples.pairs == "none":
            raise ValueError("next_sentence needs sentence pairs, but samples.pairs is none")
        if has_nsp and self.student.format == "distilbert":
            raise ValueError("student.format distilbert has no head for next_sentence: use bert")
        return self
