"""Scores of labels from counts, as often as a bootstrap needs them.

The values are those of `label_scores` and `several_labels_scores`, which take scikit-learn some
milliseconds; a bootstrap computes hundreds. Shapes: N examples, C classes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]


def scores_of_confusion(counts_CC: IntArray) -> dict[str, float]:
    """Return the scores of one label an example from counts of right [C] and found [C]."""
    total = int(counts_CC.sum())
    right_C, true_C, found_C = counts_CC.diagonal(), counts_CC.sum(1), counts_CC.sum(0)
    precision_C, recall_C, f1_C = _shares(right_C, true_C, found_C)
    accuracy = right_C.sum() / total
    binary = len(counts_CC) == 2
    values = {
        "accuracy": accuracy,
        "precision": precision_C[1] if binary else precision_C.mean(),
        "recall": recall_C[1] if binary else recall_C.mean(),
        "f1": f1_C[1] if binary else f1_C.mean(),
        "f1_micro": accuracy,
        "precision_macro": precision_C.mean(),
        "recall_macro": recall_C.mean(),
        "f1_macro": f1_C.mean(),
        "mcc": matthews(counts_CC),
    }
    return {name: float(value) for name, value in values.items()}


def scores_of_several(true_NC: IntArray, found_NC: IntArray) -> dict[str, float]:
    """Return the scores of several labels an example, from 0 and 1 for each label."""
    right_C, true_C, found_C = (true_NC & found_NC).sum(0), true_NC.sum(0), found_NC.sum(0)
    macro = _shares(right_C, true_C, found_C)
    micro = _shares(*(counts_C.sum(keepdims=True) for counts_C in (right_C, true_C, found_C)))
    values = {"accuracy": (true_NC == found_NC).all(1).mean()}
    for name, of_all, of_each in zip(("precision", "recall", "f1"), micro, macro, strict=True):
        values |= {name: of_all[0], f"{name}_micro": of_all[0], f"{name}_macro": of_each.mean()}
    both, true, found = int(right_C.sum()), int(true_C.sum()), int(found_C.sum())
    neither = true_NC.size - true - found + both
    values["mcc"] = matthews(np.array([[neither, found - both], [true - both, both]]))
    return {name: float(value) for name, value in values.items()}


def area_under_roc(is_true_N: npt.NDArray[Any], chances_N: FloatArray) -> float | None:
    """Return the area under the ROC curve by ranks (Mann-Whitney), None where it is undefined."""
    from scipy.stats import rankdata

    true = int(np.sum(is_true_N))
    others = len(is_true_N) - true
    if not true or not others:
        return None
    ranks = rankdata(chances_N)[is_true_N.astype(bool)].sum()
    return float((ranks - true * (true + 1) / 2) / (true * others))


def mean_area(is_true_NC: npt.NDArray[Any], chances_NC: FloatArray) -> float | None:
    """Return the mean area over classes, None where one of them is undefined."""
    areas = [
        area_under_roc(is_true_NC[:, column], chances_NC[:, column])
        for column in range(chances_NC.shape[1])
    ]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if len(known) == len(areas) else None


def matthews(counts_CC: IntArray) -> float:
    """Return Matthews' correlation of right and predicted classes; 0 where it is undefined.

    Source: Gorodkin, "Comparing two K-category assignments by a K-category correlation
    coefficient", 2004.
    """
    counts = counts_CC.astype(np.float64)
    total, right = counts.sum(), counts.diagonal().sum()
    true_C, found_C = counts.sum(1), counts.sum(0)
    spread = (total**2 - (found_C**2).sum()) * (total**2 - (true_C**2).sum())
    return float((right * total - true_C @ found_C) / np.sqrt(spread)) if spread > 0 else 0.0


def _shares(
    right_C: IntArray, true_C: IntArray, found_C: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return precision, recall and F1 of each class; 0 where nothing is found or true."""
    return (
        right_C / np.maximum(found_C, 1),
        right_C / np.maximum(true_C, 1),
        2 * right_C / np.maximum(true_C + found_C, 1),
    )
