"""Fine-tuning a published model on a classification task with plain transformers.

Shapes: B examples of a batch, S tokens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from launch.studies.options import TaskOptions
from launch.studies.tasks import Examples, Task
from pretrain.distributed import Cluster

Start = Literal["trained", "random"] | tuple[int, ...]  # see `load_classifier`
_WARMUP_SHARE = 0.1
_WEIGHT_DECAY = 0.01
_CLIP_NORM = 1.0
_SCORED_ROWS = 64


class Encoded(NamedTuple):
    """Examples as the ids of a model's own tokenizer, and their labels."""

    rows: Sequence[Sequence[int]]
    labels: Sequence[int]


def best_accuracy(folder: Path, task: Task, seed: int, start: Start = "trained") -> dict[str, Any]:
    """Fine-tune a published model at each rate of a task; the best on dev is reported.

    Args:
        folder: of the published model.
        task: with its examples.
        seed: keys the new head, the order of examples and dropout.
        start: the weights to start from, see `load_classifier`.

    Returns:
        the best one's `rate`, its accuracies on `dev` and `test`, and those of all under `tried`.
    """
    device = Cluster.join().device
    train, dev, test = (
        encode(folder, examples, task.options.max_tokens)
        for examples in (task.train, task.dev, task.test)
    )
    tried = []
    for rate in task.options.rates:
        torch.manual_seed(seed)
        model = load_classifier(folder, len(task.labels), start).to(device)
        fine_tune(model, train, task.options, seed, rate, device)
        scores = {"dev": accuracy(model, dev, device), "test": accuracy(model, test, device)}
        tried.append({"rate": rate, **scores})
    return {**max(tried, key=lambda scores: scores["dev"]), "tried": tried}


def encode(folder: Path, examples: Examples, max_tokens: int) -> Encoded:
    """Return examples in the ids of the tokenizer of a published model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = tokenizer(list(examples.texts), truncation=True, max_length=max_tokens)
    return Encoded(found.input_ids, examples.labels)


def fine_tune(
    model: Any, train: Encoded, options: TaskOptions, seed: int, rate: float, device: torch.device
) -> None:
    """Train a classifier with AdamW, whose rate rises and falls on lines.

    Batches depend on the seed alone, so that models of one seed see the same ones.
    """
    steps = options.epochs * -(-len(train.rows) // options.batch_rows)
    optimizer = torch.optim.AdamW(_groups(model), lr=rate)
    schedule = _rise_and_fall(optimizer, steps)
    model.train()
    for indices in batch_orders(len(train.rows), options.epochs, options.batch_rows, seed):
        with _autocast(device):
            loss = model(**make_batch(train, indices, device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def accuracy(model: Any, examples: Encoded, device: torch.device) -> float:
    """Return the share of examples whose label a classifier finds."""
    model.eval()
    # Rows of a length together: hardly any padding.
    order = sorted(range(len(examples.rows)), key=lambda index: len(examples.rows[index]))
    right = 0
    for start in range(0, len(order), _SCORED_ROWS):
        batch = make_batch(examples, order[start : start + _SCORED_ROWS], device)
        with _autocast(device):
            found_B = model(**batch).logits.argmax(-1)
        right += int((found_B == batch["labels"]).sum())
    return right / len(order)


def load_classifier(folder: Path, labels: int, start: Start = "trained") -> Any:
    """Return a published model with a new classifier.

    Args:
        folder: of the model.
        labels: number of classes.
        start: `trained` weights; `random` ones of that shape, which show what the task alone
            teaches; or the numbers of the layers, from 0, to keep of a trained model.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    # The classifier is new, and says so at each start: that is what fine-tuning is for.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if start == "random":
        config = AutoConfig.from_pretrained(folder, num_labels=labels)
        made = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
        return made
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)
    if start != "trained":
        layers = model.base_model.encoder.layer
        model.base_model.encoder.layer = torch.nn.ModuleList(layers[number] for number in start)
    return model


def make_batch(
    examples: Encoded, indices: Sequence[int], device: torch.device
) -> dict[str, torch.Tensor]:
    """Return `input_ids` [B, S], `attention_mask` [B, S] and `labels` [B] of some examples."""
    rows = [torch.tensor(examples.rows[index]) for index in indices]
    ids_BS = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths_B = torch.tensor([len(row) for row in rows])
    mask_BS = (torch.arange(ids_BS.shape[1]) < lengths_B[:, None]).long()
    labels_B = torch.tensor([examples.labels[index] for index in indices])
    batch = {"input_ids": ids_BS, "attention_mask": mask_BS, "labels": labels_B}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def batch_orders(rows: int, epochs: int, batch_rows: int, seed: int) -> Iterator[list[int]]:
    """Yield the indices of each batch: all rows once an epoch, in a new order."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(rows, generator=generator).tolist()
        for start in range(0, rows, batch_rows):
            yield order[start : start + batch_rows]


def _groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return parameter groups: matrices decay, biases and norms do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": _WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _rise_and_fall(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    from transformers import get_linear_schedule_with_warmup as linear

    return linear(optimizer, int(steps * _WARMUP_SHARE), steps)  # type: ignore[no-untyped-call]


def _autocast(device: torch.device) -> torch.autocast:
    # On a CPU without fast bf16 it would cost time and gain nothing.
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
