"""Every key of a study: one student trained in several ways, with several seeds, and its tasks."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from data_prep.config.loader import Options

_NAME = r"^[a-z0-9][a-z0-9_-]*$"
# Rows that every study has.
_RESERVED = ("teacher", "untrained", "copied")


class MethodOptions(Options):
    """One way to train the student: a row of the table."""

    name: str = Field(pattern=_NAME, description="of its folders and its row")
    what: str = Field(description="what the table says of it")
    keys: dict[str, Any] = Field(
        {}, description="keys of the student's recipe that make it this method, as `a.b: value`"
    )


class TaskOptions(Options):
    """A classification task: texts with a label each, in .csv or .tsv files with a header."""

    name: str = Field(pattern=_NAME, description="of its column")
    train: Path = Field(description="examples to fine-tune on")
    dev: Path = Field(description="examples that choose the learning rate")
    test: Path = Field(description="examples that are reported")
    text: str = Field("text", description="column of the text")
    label: str = Field("label", description="column of the label: a word or a number")
    epochs: int = Field(3, ge=1, description="times that fine-tuning sees the examples")
    batch_rows: int = Field(32, ge=1, description="examples of one step")
    rates: list[Annotated[float, Field(gt=0)]] = Field(
        [5e-5, 1e-4, 3e-4],
        min_length=1,
        description="learning rates to try; each model reports its best on dev",
    )
    max_tokens: int = Field(128, ge=8, description="longer texts are cut there")


class StudyRecipe(Options):
    """`launch/study.py`: methods side by side, with the same data, budget and optimizer."""

    path: Path = Field(description="folder of the study: its runs, exports, scores and report")
    teacher: Path = Field(description="the teacher of all methods: a run, an export, or a BERT")
    recipe: Path = Field(description="recipe of the student; methods replace some of its keys")
    keys: dict[str, Any] = Field({}, description="keys of that recipe to replace for all methods")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="`train.seed` of each repetition")
    launcher: list[str] = Field(["deepspeed"], min_length=1, description="command before a script")
    held_out_rows: int = Field(2048, ge=1, description="validation rows of 128 tokens to score")
    methods: list[Annotated[MethodOptions, "one method"]] = Field(
        min_length=1, description="rows of the table; costs are shown as multiples of the first's"
    )
    tasks: list[Annotated[TaskOptions, "one task"]] = Field(
        [], description="what each published model is fine-tuned on"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> "StudyRecipe":
        kinds: dict[str, list[str]] = {
            "method": [method.name for method in self.methods],
            "task": [task.name for task in self.tasks],
            "seed": [str(seed) for seed in self.seeds],
        }
        for kind, names in kinds.items():
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"the {kind} {twice[0]} is there twice: name it once")
        taken = [method.name for method in self.methods if method.name in _RESERVED]
        if taken:
            raise ValueError(f"every study has a row {taken[0]} of its own: rename that method")
        return self
