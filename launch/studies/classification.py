"""Fine-tuning a published model on a task of a study, by `launch/downstream`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from launch.downstream.data.examples import Example
from launch.downstream.models import load_tokenizer
from launch.downstream.options import FinetuneOptions
from launch.downstream.tasks.base import Encoded
from launch.downstream.tasks.classification import Classification
from launch.downstream.training import fit, predict
from launch.studies.tasks import Examples, Task

Start = Literal["trained", "random"] | tuple[int, ...]  # see `load_classifier`


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
    classes, tokenizer = Classification(task.labels), load_tokenizer(folder)
    options = _options(folder, task)
    train, dev, test = (
        encode(tokenizer, classes, examples, options.max_tokens)
        for examples in (task.train, task.dev, task.test)
    )
    tried = []
    for rate in options.lr:
        torch.manual_seed(seed)
        model = load_classifier(folder, len(task.labels), start)
        found = fit(model, tokenizer, classes, train, dev, options, rate=rate, seed=seed)
        scores = classes.score(test.examples, predict(model, tokenizer, classes, test))
        dev_accuracy, test_accuracy = found.dev.values["accuracy"], scores.values["accuracy"]
        tried.append({"rate": rate, "dev": dev_accuracy, "test": test_accuracy})
    return {**max(tried, key=lambda scores: scores["dev"]), "tried": tried}


def encode(tokenizer: Any, classes: Classification, examples: Examples, max_tokens: int) -> Encoded:
    """Return examples, with their labels, in the ids of a tokenizer."""
    rows: Sequence[Example] = [
        Example(str(index), text, label=classes.labels[label])
        for index, (text, label) in enumerate(zip(examples.texts, examples.labels, strict=True))
    ]
    return classes.encode(tokenizer, rows, max_tokens, for_training=True)


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


def _options(folder: Path, task: Task) -> FinetuneOptions:
    own = task.options
    return FinetuneOptions(
        model=str(folder),
        task="classification",
        train=own.train,
        dev=own.dev,
        test=own.test,
        out=folder,  # nothing is written there: the scores alone are kept
        epochs=own.epochs,
        batch_rows=own.batch_rows,
        lr=tuple(own.rates),
        max_tokens=own.max_tokens,
        bf16=torch.cuda.is_available(),
    )
