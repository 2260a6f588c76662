"""Scores of entities, by seqeval: one is right if its words and its type are.

Sentences can be drawn again by their counts, which add up.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from launch.downstream.scores.scores import Scores

Tags = Sequence[Sequence[str]]
Counts = npt.NDArray[np.int64]  # [sentences, 5], see `entity_counts`
ENTITY_SCORES = ("f1", "precision", "recall", "f1_macro", "accuracy")
_OUTSIDE = "O"


def entity_scores(true: Tags, found: Tags) -> Scores:
    """Return precision, recall and F1 over entities (micro), macro F1, and the share of tags."""
    from seqeval import metrics

    values = {"accuracy": metrics.accuracy_score(true, found)}
    if not any(tag != _OUTSIDE for tags in true for tag in tags):
        why = "no sentence has an entity"
        return Scores(values, dict.fromkeys(("precision", "recall", "f1", "f1_macro"), why))
    values |= {
        "precision": metrics.precision_score(true, found, zero_division=0),
        "recall": metrics.recall_score(true, found, zero_division=0),
        "f1": metrics.f1_score(true, found, zero_division=0),
        "f1_macro": metrics.f1_score(true, found, average="macro", zero_division=0),
    }
    return Scores({name: float(value) for name, value in values.items()})


def type_scores(true: Tags, found: Tags) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and the number of entities of each type."""
    from seqeval import metrics

    report = metrics.classification_report(true, found, output_dict=True, zero_division=0)
    return {
        kind: {name: float(value) for name, value in row.items()}
        for kind, row in report.items()
        if not kind.endswith(" avg")
    }


def entity_counts(true: Tags, found: Tags) -> Counts:
    """Return for each sentence its right, found and true entities, and its right and all tags."""
    from seqeval.metrics.sequence_labeling import get_entities

    rows = []
    for own, other in zip(true, found, strict=True):
        wanted, given = set(get_entities(list(own))), set(get_entities(list(other)))
        right = sum(a == b for a, b in zip(own, other, strict=True))
        rows.append([len(wanted & given), len(given), len(wanted), right, len(own)])
    return np.array(rows, dtype=np.int64)


def scores_of_counts(counts: Counts) -> dict[str, float]:
    """Return micro scores of sentences by their counts, the same as `entity_scores` of these."""
    right, given, wanted, tags_right, tags = counts.sum(0).tolist()
    values = {"accuracy": tags_right / tags}
    if wanted:
        values["precision"] = right / given if given else 0.0
        values["recall"] = right / wanted
        values["f1"] = 2 * right / (given + wanted)
    return values
