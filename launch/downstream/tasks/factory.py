"""The task of a fine-tuning, made for its data."""

from collections import Counter

from data_prep.errors import UserError
from launch.downstream.data.splits import Splits, labels_in
from launch.downstream.options import FinetuneOptions
from launch.downstream.tasks.answers import Answers
from launch.downstream.tasks.base import Task
from launch.downstream.tasks.classification import Classification, SeveralLabels
from launch.downstream.tasks.regression import Regression
from launch.downstream.tasks.tokens import Tokens


def make_task(options: FinetuneOptions, splits: Splits) -> Task:
    """Return the task that the examples make.

    Raises:
        UserError: for a score in `--choose-by` that the task has not.
    """
    task = _plain_task(options, splits)
    if options.choose_by is not None and options.choose_by not in task.choices:
        raise UserError(
            f"--choose-by {options.choose_by} is no score of this task where more is better: give "
            f"one of {', '.join(task.choices)}."
        )
    task.chosen_by = options.choose_by or task.chosen_by
    return task


def _plain_task(options: FinetuneOptions, splits: Splits) -> Task:
    if options.task == "regression":
        return Regression(splits.train)
    if options.task == "qa":
        return Answers(options.stride, any(not example.label for example in splits.train))
    kind = Tokens if options.task == "tokens" else Classification
    if splits.is_multi_label:
        return SeveralLabels(splits.labels)
    task: Classification | Tokens = kind(splits.labels)
    if options.class_weights:
        task.loss_weights = balanced_weights(splits)
    return task


def balanced_weights(splits: Splits) -> list[float]:
    """Return a weight for each label that makes all of them count the same.

    It is scikit-learn's `balanced`: examples / (labels * examples of the label). A label without
    training examples has the weight 1, which nothing meets.
    """
    counts = Counter(label for example in splits.train for label in labels_in(example))
    total, present = sum(counts.values()), len(counts)
    return [total / (present * counts[label]) if counts[label] else 1.0 for label in splits.labels]
