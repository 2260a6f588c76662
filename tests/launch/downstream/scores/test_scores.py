"""Scores: what several ways of computing them have in common, and how sure they are."""

import numpy as np
import pytest

from launch.downstream.scores.counts import (
    mean_area,
    scores_of_confusion,
    scores_of_several,
)
from launch.downstream.scores.entities import entity_counts, entity_scores, scores_of_counts
from launch.downstream.scores.labels import label_scores, number_scores, several_labels_scores
from launch.downstream.scores.scores import Scores, bootstrap, median_index, retention, spread


@pytest.mark.parametrize("classes", [2, 5])
def test_counts_match_scikit_learn(classes: int) -> None:
    """Scores from counts are those of scikit-learn, for each class and for all together."""
    generator = np.random.default_rng(classes)
    chances = generator.dirichlet(np.ones(classes), 200)
    true, found = generator.integers(0, classes, 200), chances.argmax(1)
    expected = label_scores(true, found, chances).values
    cells = np.bincount(true * classes + found, minlength=classes**2).reshape(classes, classes)
    columns = [1] if classes == 2 else list(range(classes))
    area = mean_area(np.eye(classes, dtype=bool)[true][:, columns], chances[:, columns])
    assert {**scores_of_confusion(cells), "auc": area} == pytest.approx(expected)


def test_several_labels_match_scikit_learn() -> None:
    """The same of several labels an example."""
    generator = np.random.default_rng(0)
    chances = generator.random((100, 4))
    true = (generator.random((100, 4)) < chances).astype(np.int64)
    found = (chances >= 0.5).astype(np.int64)
    expected = several_labels_scores(true, found, chances).values
    area = mean_area(true, chances)
    assert {**scores_of_several(true, found), "auc": area} == pytest.approx(expected)


def test_known_scores_of_labels() -> None:
    """Scores worked out by hand: of the second class where there are two."""
    true, found = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.7, 0.3]])
    scores = label_scores(true, found, chances).values
    assert scores["accuracy"] == 0.6 and scores["f1"] == scores["precision"] == 0.5
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # Five of the six pairs of a right and a wrong example are in order.
    assert scores["auc"] == pytest.approx(5 / 6)


def test_area_of_one_class_is_undefined() -> None:
    """With one class alone, AUC is left out with the reason."""
    scores = label_scores(np.zeros(3, int), np.zeros(3, int), np.tile([0.9, 0.1], (3, 1)))
    assert "auc" not in scores.values and "1 of 2 classes" in scores.undefined["auc"]
    several = several_labels_scores(np.ones((2, 1), int), np.ones((2, 1), int), np.ones((2, 1)))
    assert "auc" not in several.values and "1 of 1 labels" in several.undefined["auc"]


def test_correlations_of_numbers() -> None:
    """Spearman is of ranks, Pearson of values; of constant numbers both are undefined."""
    true = np.array([1.0, 2.0, 3.0, 4.0])
    scores = number_scores(true, true**3).values
    assert scores["spearman"] == pytest.approx(1) and 0.9 < scores["pearson"] < 1
    constant = number_scores(true, np.ones(4))
    assert "pearson" not in constant.values and "predicted" in constant.undefined["pearson"]
    assert constant.values["mae"] == 1.5


def test_entities_are_whole() -> None:
    """An entity counts if all of its words and its type are right; counts give the same scores."""
    true = [["B-x", "I-x", "O"], ["B-y", "O", "B-x"]]
    found = [["B-x", "O", "O"], ["B-y", "O", "B-y"]]
    scores = entity_scores(true, found).values
    assert scores["precision"] == scores["recall"] == scores["f1"] == pytest.approx(1 / 3)
    counted = scores_of_counts(entity_counts(true, found))
    assert counted == pytest.approx({name: scores[name] for name in counted})
    assert set(entity_scores([["O"]], [["O"]]).undefined) == {
        "precision",
        "recall",
        "f1",
        "f1_macro",
    }


def test_bootstrap_covers_the_mean() -> None:
    """The interval of a share is about two standard errors to each side, the same each time."""
    right = np.arange(400) % 4 > 0
    scores_of = lambda rows: {"accuracy": float(right[rows].mean())}  # noqa: E731
    low, high = bootstrap(scores_of, 400)["accuracy"]
    error = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    # 500 draws give each end within a sixth of the interval.
    assert low == pytest.approx(0.75 - error, abs=error / 3)
    assert high == pytest.approx(0.75 + error, abs=error / 3)
    assert bootstrap(scores_of, 400)["accuracy"] == (low, high)


def test_spread_over_seeds() -> None:
    """Median, least and greatest of the seeds; an undefined one is null and counts not."""
    seeds = [Scores({"a": 0.5}), Scores({"a": 0.9, "b": 1.0}), Scores({"a": 0.6, "b": 0.5})]
    table = spread(seeds, {"a": (0.4, 0.8)})
    assert table["a"] == {
        "median": 0.6,
        "min": 0.5,
        "max": 0.9,
        "per_seed": [0.5, 0.9, 0.6],
        "interval": [0.4, 0.8],
    }
    assert table["b"]["per_seed"] == [None, 1.0, 0.5] and table["b"]["median"] == 0.75
    assert median_index([3.0, 1.0, 2.0]) == 2 and median_index([3.0, 1.0, 2.0, 4.0]) == 2


def test_retention_is_a_share() -> None:
    """A student's share of its teacher's median; none of errors, and of scores of 0 or below."""
    student = {"f1": {"median": 0.45}, "mcc": {"median": 0.1}, "mse": {"median": 2.0}}
    teacher = {"f1": {"median": 0.9}, "mcc": {"median": -0.1}, "mse": {"median": 1.0}}
    assert retention(student, teacher) == ({"f1": 0.5}, ["mcc"])
