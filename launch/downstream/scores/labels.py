"""Scores of labels, by scikit-learn.

Shapes: N examples, C classes.
"""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from launch.downstream.scores.scores import Scores

# Scores of which more is better.
LABEL_SCORES = (
    *("accuracy", "precision", "recall", "f1", "f1_micro"),
    *("precision_macro", "recall_macro", "f1_macro", "mcc", "auc"),
)
SEVERAL_LABELS_SCORES = (*LABEL_SCORES, "precision_micro", "recall_micro")
NUMBER_SCORES = ("pearson", "spearman")

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]


def label_scores(true_N: IntArray, found_N: IntArray, chances_NC: FloatArray) -> Scores:
    """Return the scores of one label an example.

    `precision`, `recall` and `f1` are those of the second class where there are two, as in GLUE,
    and means over the classes (macro) where there are more.

    Args:
        true_N: right classes.
        found_N: predicted ones.
        chances_NC: probabilities.
    """
    from sklearn import metrics

    classes = np.arange(chances_NC.shape[1])
    shared: dict[str, Any] = {"labels": classes, "zero_division": 0}
    precision_C, recall_C, f1_C, _ = metrics.precision_recall_fscore_support(
        true_N, found_N, average=None, **shared
    )
    binary = len(classes) == 2
    values = {
        "accuracy": metrics.accuracy_score(true_N, found_N),
        "precision": precision_C[1] if binary else precision_C.mean(),
        "recall": recall_C[1] if binary else recall_C.mean(),
        "f1": f1_C[1] if binary else f1_C.mean(),
        # Of one label an example, micro precision, recall and F1 are all the accuracy.
        "f1_micro": metrics.f1_score(true_N, found_N, average="micro", **shared),
        "precision_macro": precision_C.mean(),
        "recall_macro": recall_C.mean(),
        "f1_macro": f1_C.mean(),
        "mcc": _matthews(true_N, found_N),
    }
    area, why = _area(true_N, chances_NC)
    if area is not None:
        values["auc"] = area
    return Scores({name: float(v) for name, v in values.items()}, {"auc": why} if why else {})


def _area(true_N: IntArray, chances_NC: FloatArray) -> tuple[float | None, str]:
    """Return the area under the ROC curve, the mean over classes against the rest."""
    from sklearn import metrics

    present = np.unique(true_N)
    if len(present) < chances_NC.shape[1]:
        missing = chances_NC.shape[1] - len(present)
        return (
            None,
            f"{missing} of {chances_NC.shape[1]} classes have no example, so AUC is undefined",
        )
    if chances_NC.shape[1] == 2:
        return float(metrics.roc_auc_score(true_N, chances_NC[:, 1])), ""
    areas = [
        metrics.roc_auc_score(true_N == index, chances_NC[:, index])
        for index in range(chances_NC.shape[1])
    ]
    return float(np.mean(areas)), ""


def _matthews(true: IntArray, found: IntArray) -> float:
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one class alone, where it is 0
        return float(matthews_corrcoef(true, found))


def several_labels_scores(true_NC: IntArray, found_NC: IntArray, chances_NC: FloatArray) -> Scores:
    """Return the scores of several labels an example; `accuracy` counts those all right.

    `precision`, `recall` and `f1` are micro: over all labels of all examples.
    """
    from sklearn import metrics

    values: dict[str, float] = {"accuracy": metrics.accuracy_score(true_NC, found_NC)}
    for average, ending in (("micro", ""), ("micro", "_micro"), ("macro", "_macro")):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            true_NC, found_NC, average=average, zero_division=0
        )
        values |= {f"precision{ending}": precision, f"recall{ending}": recall, f"f1{ending}": f1}
    values["mcc"] = _matthews(true_NC.ravel(), found_NC.ravel())
    both = [c for c in range(true_NC.shape[1]) if 0 < true_NC[:, c].sum() < len(true_NC)]
    undefined = {}
    if len(both) == true_NC.shape[1]:
        areas = [metrics.roc_auc_score(true_NC[:, c], chances_NC[:, c]) for c in both]
        values["auc"] = float(np.mean(areas))
    else:
        undefined["auc"] = (
            f"{true_NC.shape[1] - len(both)} of {true_NC.shape[1]} labels are on all examples or "
            "on none, so AUC is undefined"
        )
    return Scores({name: float(value) for name, value in values.items()}, undefined)


def number_scores(true_N: FloatArray, found_N: FloatArray) -> Scores:
    """Return correlations (Pearson, Spearman) and errors (mean squared, mean absolute)."""
    from scipy import stats

    values = {
        "mse": float(np.mean((true_N - found_N) ** 2)),
        "mae": float(np.mean(np.abs(true_N - found_N))),
    }
    if len(true_N) < 2 or np.ptp(true_N) == 0 or np.ptp(found_N) == 0:
        side = "right" if len(true_N) < 2 or np.ptp(true_N) == 0 else "predicted"
        why = f"all {side} numbers are equal, so correlations are undefined"
        return Scores(values, {"pearson": why, "spearman": why})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nearly equal numbers
        pearson, spearman = stats.pearsonr(true_N, found_N), stats.spearmanr(true_N, found_N)
    return Scores(
        {"pearson": float(pearson.statistic), "spearman": float(spearman.statistic), **values}
    )
