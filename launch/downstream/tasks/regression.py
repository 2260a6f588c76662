"""Texts or pairs with a number each, such as the similarity of two sentences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from launch.downstream.data.examples import Example
from launch.downstream.scores.labels import NUMBER_SCORES, number_scores
from launch.downstream.scores.scores import Scores
from launch.downstream.tasks.base import (
    Encoded,
    FloatArray,
    Prediction,
    Resampled,
    encode_texts,
)


class Regression:
    """A number a text. The model learns numbers of mean 0 and deviation 1.

    Args:
        train: examples whose numbers give mean and deviation.
    """

    head = "AutoModelForSequenceClassification"
    chosen_by = "pearson"
    choices: Sequence[str] = NUMBER_SCORES
    has_windows = False
    loss_weights: Sequence[float] | None = None

    def __init__(self, train: Sequence[Example]) -> None:
        numbers = np.array([example.label for example in train])
        self.mean = float(numbers.mean())
        self.deviation = float(numbers.std()) or 1.0

    def settings(self) -> dict[str, Any]:
        """Return one output with the squared error."""
        return {"num_labels": 1, "problem_type": "regression"}

    def finish(self, model: Any) -> None:
        """Scale the last layer, so that the model gives the numbers themselves."""
        last = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(self.deviation)
            last.bias.mul_(self.deviation).add_(self.mean)

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], max_tokens: int, for_training: bool
    ) -> Encoded:
        """Return the ids of texts, cut to the length, and the scaled numbers."""
        features, too_long = encode_texts(tokenizer, examples, max_tokens)
        if for_training:
            for row, example in zip(features, examples, strict=True):
                row["labels"] = (example.label - self.mean) / self.deviation
        return Encoded(features, examples, too_long)

    def predict(self, logits: Any, encoded: Encoded) -> list[Prediction]:
        """Return the number of each example."""
        numbers = np.asarray(logits, dtype=np.float64).reshape(-1) * self.deviation + self.mean
        return [Prediction(float(number)) for number in numbers]

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Scores:
        """Return correlations and errors."""
        return number_scores(*self.arrays(examples, predictions))

    def resampled(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> Resampled:
        """Return a function from indices of examples to the scores of these."""
        true, found = self.arrays(examples, predictions)
        return lambda indices: number_scores(true[indices], found[indices]).values

    def arrays(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> tuple[FloatArray, FloatArray]:
        """Return right and predicted numbers [N]."""
        return (
            np.array([example.label for example in examples], dtype=np.float64),
            np.array([prediction.value for prediction in predictions], dtype=np.float64),
        )
