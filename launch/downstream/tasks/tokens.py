"""Sentences with a tag for each word: named entities, or parts of speech.

A word is tagged by its first token. Shapes: N sentences, S tokens, C tags.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from launch.downstream.data.conll import OUTSIDE, bio_tags
from launch.downstream.data.examples import Example
from launch.downstream.scores.entities import (
    ENTITY_SCORES,
    entity_counts,
    entity_scores,
    scores_of_counts,
)
from launch.downstream.scores.labels import LABEL_SCORES, label_scores
from launch.downstream.scores.scores import Scores
from launch.downstream.tasks.base import (
    Encoded,
    Prediction,
    Resampled,
    softmax,
)

TAG_SCORES = tuple(name for name in LABEL_SCORES if name != "auc")  # tags have no curve
_NO_LABEL = -100  # that of torch's cross-entropy and of the collator of transformers


class Tokens:
    """A tag a word.

    Args:
        labels: all tags; entities are scored where they are of BIO's form.
    """

    head = "AutoModelForTokenClassification"
    has_windows = False
    loss_weights: Sequence[float] | None = None

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.numbers = {label: number for number, label in enumerate(labels)}
        self.has_entities = any(label.startswith("B-") for label in labels)
        self.chosen_by = "f1" if self.has_entities else "accuracy"
        self.choices: Sequence[str] = ENTITY_SCORES if self.has_entities else TAG_SCORES
        # Words that are cut off, or of no token, are no entities.
        self._default = OUTSIDE if OUTSIDE in self.numbers else self.labels[0]

    def settings(self) -> dict[str, Any]:
        """Return the tags."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": self.numbers,
        }

    def finish(self, model: Any) -> None:
        """Leave the model as it is."""

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], max_tokens: int, for_training: bool
    ) -> Encoded:
        """Return the ids of sentences, cut to the length, and the tag at each word's first token.

        The details are the indices of these tokens, by example and word.
        """
        words = [list(example.words) for example in examples]
        whole = tokenizer(words, is_split_into_words=True)
        too_long = sum(len(ids) > max_tokens for ids in whole["input_ids"])
        cut = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_tokens)
        features, first_tokens = [], []
        for row, example in enumerate(examples):
            first = _first_tokens(cut.word_ids(row))
            feature = {name: cut[name][row] for name in cut}
            if for_training:
                labels = [_NO_LABEL] * len(feature["input_ids"])
                for word, index in first.items():
                    labels[index] = self.numbers[example.label[word]]
                feature["labels"] = labels
            features.append(feature)
            first_tokens.append(first)
        return Encoded(features, examples, too_long, first_tokens)

    def predict(self, logits: Any, encoded: Encoded) -> list[Prediction]:
        """Return the most probable tag of each word, in valid BIO, and its probability."""
        predictions = []
        for logits_SC, first, example in zip(
            logits, encoded.details, encoded.examples, strict=True
        ):
            chances_SC = softmax(np.asarray(logits_SC))
            tags = [self._default] * len(example.words)
            chances = [0.0] * len(example.words)
            for word, index in first.items():
                best = int(chances_SC[index].argmax())
                tags[word], chances[word] = self.labels[best], float(chances_SC[index, best])
            tags = bio_tags(tags) if self.has_entities else tags
            predictions.append(Prediction(tags, chances))
        return predictions

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Scores:
        """Return the scores of entities, or of tags where there are none."""
        true = [list(example.label) for example in examples]
        found = [list(prediction.value) for prediction in predictions]
        if self.has_entities:
            return entity_scores(true, found)
        return self._tag_scores(list(chain(*true)), list(chain(*found)))

    def resampled(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> Resampled:
        """Return a function from indices of sentences to the scores of these."""
        true = [list(example.label) for example in examples]
        found = [list(prediction.value) for prediction in predictions]
        counts = entity_counts(true, found)
        if self.has_entities:
            return lambda indices: scores_of_counts(counts[indices])
        shares = counts[:, 3:]
        return lambda indices: {"accuracy": float(np.divide(*shares[indices].sum(0)))}

    def _tag_scores(self, true: Sequence[str], found: Sequence[str]) -> Scores:
        found_N = np.array([self.numbers[tag] for tag in found])
        scores = label_scores(
            np.array([self.numbers[tag] for tag in true]),
            found_N,
            np.eye(len(self.labels))[found_N],
        )
        return Scores({name: scores.values[name] for name in TAG_SCORES})


def _first_tokens(word_ids: Sequence[int | None]) -> dict[int, int]:
    """Return the index of the first token of each word that has one."""
    first: dict[int, int] = {}
    for index, word in enumerate(word_ids):
        if word is not None:
            first.setdefault(word, index)
    return first
