"""Keys of a student's recipe that say who teaches, and what the student is and starts from."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from data_prep.recipe import Options


class TeacherOptions(Options):
    """One teacher, or several whose predictions are averaged."""

    path: Path | None = Field(
        None, description="the teacher: a run folder, an export, or any BERT of transformers"
    )
    paths: list[Path] = Field(
        [], description="several teachers instead; their probabilities are averaged"
    )
    signal: Path | None = Field(
        None,
        description="folder of its stored soft targets, made by launch/write_signal.py: it is "
        "asked for no words then; null asks it",
    )
    sharded: bool = Field(
        False,
        description="for a teacher that is too large for a device: each rank keeps a part of its "
        "layers and gathers one at a time (embeddings and heads stay whole); answers stay the same",
    )

    @property
    def all_paths(self) -> list[Path]:
        """Where the teachers are."""
        return self.paths or ([] if self.path is None else [self.path])

    @model_validator(mode="after")
    def _one_or_several(self) -> "TeacherOptions":
        if (self.path is None) == (not self.paths):
            raise ValueError("give path for one teacher, or paths for several")
        if self.signal is not None and self.paths:
            raise ValueError("signal holds the answers of one teacher: give path, not paths")
        return self


class StudentOptions(Options):
    """The student's shape, where it differs from its teacher's, and its first weights."""

    layers: int | None = Field(
        None, ge=1, description="null is as many as `init` names, else half of the teacher's"
    )
    width: int | None = Field(None, ge=8, description="hidden size; null is the teacher's")
    heads: int | None = Field(None, ge=1, description="attention heads; null is the teacher's")
    feed_forward: int | None = Field(
        None, ge=8, description="width inside the feed-forward block; null is the teacher's"
    )
    init: Literal["uniform", "lower", "upper", "random"] | list[int] = Field(
        "uniform",
        description="teacher layers to start from: evenly spread, the first, the last, or a list "
        "counted from 0; or random weights",
    )
    format: Literal["bert", "distilbert"] = Field(
        "bert", description="published as; distilbert has no segments and no pooler"
    )

    @model_validator(mode="after")
    def _list_fits_layers(self) -> "StudentOptions":
        if isinstance(self.init, list):
            if not self.init:
                raise ValueError("init names no layers: name at least one")
            if self.layers not in (None, len(self.init)):
                raise ValueError(f"init names {len(self.init)} layers, but layers is {self.layers}")
        return self
