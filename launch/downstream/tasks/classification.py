"""Texts or pairs with a label, or several labels, each.

Shapes: N examples, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from launch.downstream.data.examples import Example
from launch.downstream.data.splits import labels_in
from launch.downstream.scores.counts import mean_area, scores_of_confusion, scores_of_several
from launch.downstream.scores.labels import (
    LABEL_SCORES,
    SEVERAL_LABELS_SCORES,
    label_scores,
    several_labels_scores,
)
from launch.downstream.scores.scores import Scores
from launch.downstream.tasks.base import (
    Encoded,
    FloatArray,
    IntArray,
    Prediction,
    Resampled,
    encode_texts,
    softmax,
)

_THRESHOLD = 0.5  # probability from which an example has a label, where it can have several


class Classification:
    """One label a text.

    Args:
        labels: all that there are.
    """

    head = "AutoModelForSequenceClassification"
    chosen_by = "accuracy"
    choices: Sequence[str] = LABEL_SCORES
    has_windows = False
    loss_weights: Sequence[float] | None = None
    problem_type = "single_label_classification"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.numbers = {label: number for number, label in enumerate(labels)}

    def settings(self) -> dict[str, Any]:
        """Return the labels and the kind of loss."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": self.numbers,
            "problem_type": self.problem_type,
        }

    def finish(self, model: Any) -> None:
        """Leave the model as it is."""

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], max_tokens: int, for_training: bool
    ) -> Encoded:
        """Return the ids of texts, cut to the length, and the number of each label."""
        features, too_long = encode_texts(tokenizer, examples, max_tokens)
        if for_training:
            for row, example in zip(features, examples, strict=True):
                row["labels"] = self.target_of(example)
        return Encoded(features, examples, too_long)

    def target_of(self, example: Example) -> Any:
        """Return the label of an example as the loss takes it."""
        return self.numbers[example.label]

    def predict(self, logits: Any, encoded: Encoded) -> list[Prediction]:
        """Return the most probable label of each example."""
        return [
            Prediction(self.labels[best], float(chances_C[best]), chances_C)
            for chances_C in softmax(np.asarray(logits))
            for best in [int(chances_C.argmax())]
        ]

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Scores:
        """Return accuracy, precision, recall, F1, MCC and AUC."""
        return label_scores(*self.arrays(examples, predictions))

    def resampled(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> Resampled:
        """Return a function from indices of examples to the scores of these."""
        true_N, found_N, chances_NC = self.arrays(examples, predictions)
        classes = len(self.labels)
        # Of two classes, the area of the second is that of both.
        columns = [1] if classes == 2 else list(range(classes))
        is_true_NC = np.eye(classes, dtype=bool)[true_N][:, columns]
        chances_NC = chances_NC[:, columns]

        def scores_of(rows: IntArray) -> dict[str, float]:
            cells = np.bincount(true_N[rows] * classes + found_N[rows], minlength=classes**2)
            area = mean_area(is_true_NC[rows], chances_NC[rows])
            scores = scores_of_confusion(cells.reshape(classes, classes))
            return scores if area is None else {**scores, "auc": area}

        return scores_of

    def arrays(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Return right and predicted classes [N], and probabilities [N, C]."""
        return (
            np.array([self.numbers[example.label] for example in examples]),
            np.array([self.numbers[prediction.value] for prediction in predictions]),
            np.stack([_distribution(prediction) for prediction in predictions]),
        )


class SeveralLabels(Classification):
    """Any number of labels a text."""

    chosen_by = "f1_micro"
    choices: Sequence[str] = SEVERAL_LABELS_SCORES
    problem_type = "multi_label_classification"

    def target_of(self, example: Example) -> Any:
        """Return 1 for each label that the example has, 0 for the others."""
        own = labels_in(example)
        return [float(label in own) for label in self.labels]

    def predict(self, logits: Any, encoded: Encoded) -> list[Prediction]:
        """Return the labels with a probability from a half on."""
        chances_NC = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
        predictions = []
        for chances_C in chances_NC:
            by_label = dict(zip(self.labels, map(float, chances_C), strict=True))
            found = [label for label, chance in by_label.items() if chance >= _THRESHOLD]
            predictions.append(Prediction(found, by_label, chances_C))
        return predictions

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Scores:
        """Return accuracy, precision, recall, F1, MCC and AUC."""
        return several_labels_scores(*self.arrays(examples, predictions))

    def resampled(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> Resampled:
        """Return a function from indices of examples to the scores of these."""
        true_NC, found_NC, chances_NC = self.arrays(examples, predictions)

        def scores_of(rows: IntArray) -> dict[str, float]:
            area = mean_area(true_NC[rows], chances_NC[rows])
            scores = scores_of_several(true_NC[rows], found_NC[rows])
            return scores if area is None else {**scores, "auc": area}

        return scores_of

    def arrays(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Return right and predicted labels as 0 and 1 [N, C], and probabilities [N, C]."""
        chances_NC = np.stack([_distribution(prediction) for prediction in predictions])
        true_NC = np.array([self.target_of(example) for example in examples], dtype=np.int64)
        return true_NC, (chances_NC >= _THRESHOLD).astype(np.int64), chances_NC


def _distribution(prediction: Prediction) -> FloatArray:
    assert prediction.distribution is not None  # `predict` gives each one
    return prediction.distribution
