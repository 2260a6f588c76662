"""What differs between tasks: the head, the form of inputs, predictions and scores.

Shapes: N examples or windows, S tokens, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from launch.downstream.data.examples import Example
from launch.downstream.scores.scores import Scores

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
Features = list[dict[str, Any]]  # inputs of a model by name, a row an example or window
Resampled = Callable[[IntArray], dict[str, float]]


@dataclass(frozen=True)
class Encoded:
    """Examples as a model reads them.

    Attributes:
        features: inputs and labels, in the order of the examples.
        examples: those that they are of.
        too_long: how many of them were cut, or read in several windows.
        details: what a task needs to make predictions of logits.
    """

    features: Features
    examples: Sequence[Example]
    too_long: int
    details: Any = None


@dataclass(frozen=True)
class Prediction:
    """What a model finds for one example.

    Attributes:
        value: a label, labels, a number, tags, or the text of an answer.
        probability: that the model gives it; none of numbers.
        distribution: probabilities of all classes [C].
    """

    value: Any
    probability: Any = None
    distribution: FloatArray | None = None


class Task(Protocol):
    """A kind of downstream task."""

    head: str  # `Auto` class
    chosen_by: str  # score on dev that chooses rate and epoch
    choices: Sequence[str]  # scores that could choose instead
    has_windows: bool  # whether long texts are read in several windows, instead of cut
    loss_weights: Sequence[float] | None  # of classes

    def settings(self) -> dict[str, Any]:
        """Return entries of the model's config."""
        ...

    def finish(self, model: Any) -> None:
        """Change a trained model so that its outputs need nothing of this project."""
        ...

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], max_tokens: int, for_training: bool
    ) -> Encoded:
        """Return examples as inputs of a model, with labels where they are for training."""
        ...

    def predict(self, logits: Any, encoded: Encoded) -> list[Prediction]:
        """Return a prediction for each example."""
        ...

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Scores:
        """Return the scores of predictions."""
        ...

    def resampled(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> Resampled:
        """Return a function from indices of examples to the scores of these."""
        ...


def encode_texts(
    tokenizer: Any, examples: Sequence[Example], max_tokens: int
) -> tuple[Features, int]:
    """Return the inputs of texts or pairs, cut to a length, and how many were cut."""
    texts = [example.text for example in examples]
    pairs = [example.pair or "" for example in examples]
    both = [texts] if examples[0].pair is None else [texts, pairs]
    whole = tokenizer(*both)
    lengths = [len(ids) for ids in whole["input_ids"]]
    cut = tokenizer(*both, truncation=True, max_length=max_tokens)
    features = [{name: cut[name][row] for name in cut} for row in range(len(examples))]
    return features, sum(length > max_tokens for length in lengths)


def softmax(logits_NC: FloatArray) -> FloatArray:
    """Return probabilities over the last axis."""
    shifted = logits_NC - logits_NC.max(-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(-1, keepdims=True))
