"""The options of a fine-tuning: the switches of `launch/finetune.py`, each with its meaning."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from data_prep.config.loader import Options
from data_prep.errors import UserError

TaskName = Literal["classification", "regression", "tokens", "qa"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
# Folders in which fine-tuned models are left.
MODEL, TEACHER = "model", "teacher"


class FinetuneOptions(Options):
    """One fine-tuning of a model, and of its teacher by the same protocol."""

    model: str = Field(description="folder of an encoder, or its name on the Hugging Face hub")
    task: TaskName = Field(description="what the examples are")
    train: Path = Field(description="examples to fine-tune on")
    dev: Path | None = Field(None, description="examples that choose rate and epoch")
    test: Path = Field(description="examples that are reported")
    out: Path = Field(description="folder for results.json, predictions, pictures and the model")
    text: str = Field("text", description="column of the text: a name, or a number")
    text_pair: str | None = Field(None, description="column of the second text of a pair")
    label: str = Field("label", description="column of the label: a name, or a number")
    label_separator: str | None = Field(None, description="between the labels of one cell")
    teacher: str | None = Field(None, description="fine-tuned in the same way, and compared with")
    seeds: Annotated[int, Field(ge=1)] = Field(1, description="repetitions")
    epochs: Annotated[int, Field(ge=1)] = Field(3, description="times that training sees the data")
    lr: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (3e-5, 1e-4, 3e-4), min_length=1, description="learning rates; the best on dev is taken"
    )
    batch_rows: Annotated[int, Field(ge=1)] = Field(32, description="examples of one step")
    max_tokens: Annotated[int, Field(ge=8)] = Field(
        384, description="longer texts are cut there, or read in windows (qa)"
    )
    max_train: Annotated[int, Field(ge=1)] | None = Field(
        None, description="train on so many examples alone"
    )
    early_stopping: Annotated[int, Field(ge=1)] | None = Field(
        None, description="stop after so many epochs without a better dev score"
    )
    stride: Annotated[int, Field(ge=1)] = Field(128, description="tokens that qa windows share")
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of the steps in which the rate rises"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="of AdamW, on matrices")
    class_weights: bool = Field(False, description="weigh rare labels like frequent ones")
    bf16: bool = Field(False, description="train in bfloat16 autocast")
    fp16: bool = Field(False, description="train in float16 autocast, on a GPU")
    gradient_checkpointing: bool = Field(False, description="less memory, more time")
    choose_by: str | None = Field(
        None, description="score on dev that chooses rate and epoch, in place of the task's own"
    )
    drop_overlap: bool = Field(False, description="leave train examples out that dev or test has")
    points: tuple[Path, ...] = Field(
        (), description="results.json of other models, grey in the picture of score and latency"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "FinetuneOptions":
        if self.bf16 and self.fp16:
            raise UserError("--bf16 and --fp16 exclude each other: give one of them.")
        if self.class_weights and self.task not in ("classification", "tokens"):
            raise UserError(
                f"--class-weights weighs labels, which the task {self.task} has not: leave it out."
            )
        if self.label_separator is not None and self.task != "classification":
            raise UserError(
                f"--label-separator is for the task classification, not {self.task}: leave it out."
            )
        return self
