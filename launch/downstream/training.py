"""Training of one model with one rate and one seed, by the Trainer of transformers.

The weights of the epoch that is best on dev are kept, in memory.
"""

import inspect
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from data_prep.errors import UserError
from launch.downstream.options import FinetuneOptions
from launch.downstream.scores.scores import Scores
from launch.downstream.tasks.base import Encoded, Features, Prediction, Task

_EVALUATED_ROWS = 64
_LOGGED_STEPS = 10


@dataclass(kw_only=True)
class Fit:
    """What a training came to.

    Attributes:
        epoch: the best on dev, from 1.
        dev: scores of that epoch.
        history: (step, scores and losses by tag) as they came.
    """

    epoch: int = 0
    dev: Scores = field(default_factory=lambda: Scores({}))
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)


def check_device(options: FinetuneOptions) -> None:
    """Refuse float16 without a GPU, and batches that do not divide over the GPUs.

    Raises:
        UserError: as it says.
    """
    rows_of_device(options.batch_rows, "--batch-rows")
    if options.fp16 and not torch.cuda.is_available():
        raise UserError("--fp16 needs a GPU, and there is none: give --bf16, or neither.")


def rows_of_device(batch_rows: int, key: str) -> int:
    """Return how many rows of a batch each GPU has, all of them without GPUs.

    Args:
        batch_rows: of all GPUs.
        key: by which they are set, for the message.

    Raises:
        UserError: for rows that do not divide; it names the nearest number that does.
    """
    devices = max(1, torch.cuda.device_count())
    if batch_rows % devices:
        nearest = max(1, round(batch_rows / devices)) * devices
        raise UserError(
            f"{key} {batch_rows} does not divide over {devices} GPUs: give {nearest}, or other "
            "GPUs by CUDA_VISIBLE_DEVICES."
        )
    return batch_rows // devices


def fit(
    model: Any,
    tokenizer: Any,
    task: Task,
    train: Encoded,
    dev: Encoded,
    options: FinetuneOptions,
    *,
    rate: float,
    seed: int,
) -> Fit:
    """Train a model and leave it with the weights of its best epoch on dev.

    Args:
        model: with the head of the task.
        tokenizer: of the model.
        task: of the examples.
        train: with labels.
        dev: examples that choose the epoch.
        options: of training.
        rate: highest learning rate; it rises and falls on lines.
        seed: of the order of examples and of dropout.
    """
    found = Fit()
    with tempfile.TemporaryDirectory() as folder, without_deepspeed():
        trainer = _make_trainer(model, tokenizer, task, train, options, rate, seed, Path(folder))
        trainer.add_callback(_BestEpoch(trainer, task, dev, options.early_stopping, found))
        trainer.train()
    for record in trainer.state.log_history:
        if "loss" in record:
            values = {"train/loss": record["loss"], "train/lr": record["learning_rate"]}
            found.history.append((int(record["step"]), values))
    return found


def predict(model: Any, tokenizer: Any, task: Task, encoded: Encoded) -> list[Prediction]:
    """Return what a model finds for each example."""
    with tempfile.TemporaryDirectory() as folder, without_deepspeed():
        arguments = TrainingArguments(folder, **_shared_arguments())
        trainer = Trainer(model, arguments, data_collator=_collator(tokenizer, task))
        return _predict(trainer, task, encoded)


class _BestEpoch(TrainerCallback):
    """Scores dev after each epoch, and keeps the weights of the best one."""

    def __init__(
        self, trainer: Trainer, task: Task, dev: Encoded, stop_after: int | None, found: Fit
    ) -> None:
        self._trainer, self._task, self._dev = trainer, task, dev
        self._stop_after, self._found = stop_after, found
        self._best = -np.inf
        self._epoch = 0
        self._weights: dict[str, torch.Tensor] = {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        model = self._trainer.model
        assert model is not None
        self._epoch += 1
        predictions = _predict(self._trainer, self._task, self._dev)
        scores = self._task.score(self._dev.examples, predictions)
        tags = {f"dev/{name}": value for name, value in scores.values.items()}
        self._found.history.append((state.global_step, tags))
        # A score that is not defined, as a correlation with constant predictions, is the worst.
        value = scores.values.get(self._task.chosen_by, -np.inf)
        if value > self._best or not self._weights:
            self._best = value
            self._found.epoch, self._found.dev = self._epoch, scores
            self._weights = {
                name: tensor.detach().to("cpu", copy=True)
                for name, tensor in model.state_dict().items()
            }
        elif self._stop_after and self._epoch - self._found.epoch >= self._stop_after:
            control.should_training_stop = True
        model.train()
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        model = self._trainer.model
        assert model is not None
        model.load_state_dict(self._weights)


def _make_trainer(
    model: Any,
    tokenizer: Any,
    task: Task,
    train: Encoded,
    options: FinetuneOptions,
    rate: float,
    seed: int,
    folder: Path,
) -> Trainer:
    rows = accepted_inputs(model, train.features)
    if options.gradient_checkpointing:
        # Newer versions of transformers deprecate the older name.
        newer = getattr(model, "activation_checkpointing_enable", None)
        (newer or model.gradient_checkpointing_enable)()
    steps = options.epochs * -(-len(rows) // options.batch_rows)
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=rows_of_device(options.batch_rows, "batch_rows"),
        learning_rate=rate,
        lr_scheduler_type="linear",
        warmup_steps=int(steps * options.warmup_share),
        weight_decay=options.weight_decay,
        max_grad_norm=1.0,
        seed=seed,
        data_seed=seed,
        bf16=options.bf16,
        fp16=options.fp16,
        logging_steps=_LOGGED_STEPS,
        save_strategy="no",
        **_shared_arguments(),
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=_collator(tokenizer, task),
        train_dataset=rows,
        compute_loss_func=_weighted_loss(task.loss_weights) if task.loss_weights else None,
    )
    # It prints a dictionary at each logged step.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _shared_arguments() -> dict[str, Any]:
    return {
        "per_device_eval_batch_size": _EVALUATED_ROWS,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


@contextmanager
def without_deepspeed() -> Iterator[None]:
    """Keep accelerate from importing DeepSpeed, ten seconds, to see if a model is an engine."""
    import accelerate.utils.other as module

    if not hasattr(module, "is_deepspeed_available"):  # another version of accelerate
        yield
        return
    with patch.object(module, "is_deepspeed_available", return_value=False):
        yield


def _weighted_loss(weights: Sequence[float]) -> Any:
    """Return the cross-entropy whose classes have weights: the mean over the weights met."""

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs.logits.float()
        weights_C = torch.tensor(weights, device=logits.device)
        return torch.nn.functional.cross_entropy(
            logits.reshape(-1, len(weights)), labels.reshape(-1), weights_C
        )

    return loss


def _collator(tokenizer: Any, task: Task) -> Any:
    if task.head == "AutoModelForTokenClassification":
        return DataCollatorForTokenClassification(tokenizer)
    return DataCollatorWithPadding(tokenizer)


def _predict(trainer: Trainer, task: Task, encoded: Encoded) -> list[Prediction]:
    """Return predictions; rows of a length are computed together, with hardly any padding."""
    rows = accepted_inputs(trainer.model, encoded.features)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]["input_ids"]))
    found = trainer.predict([rows[index] for index in order]).predictions  # type: ignore[arg-type]
    back = np.argsort(order)
    if isinstance(found, tuple):
        return task.predict(tuple(logits[back] for logits in found[:2]), encoded)
    return task.predict(found[back], encoded)


def accepted_inputs(model: Any, features: Features) -> Features:
    """Return the inputs that a model has: some know no token types, or one alone."""
    names = set(inspect.signature(model.forward).parameters)
    if getattr(model.config, "type_vocab_size", 2) < 2:
        names.discard("token_type_ids")
    return [{name: row[name] for name in row if name in names} for row in features]
