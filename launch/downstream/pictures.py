"""Pictures of a fine-tuned model: what it confuses, its curves, its calibration, and its cost.

Shapes: N examples, C classes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.errors import UserError
from launch.downstream.data.examples import Example
from launch.downstream.scores.entities import type_scores
from launch.downstream.tasks.base import Prediction, Task
from launch.downstream.tasks.classification import Classification, SeveralLabels
from launch.downstream.tasks.regression import Regression
from launch.downstream.tasks.tokens import Tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_MATPLOTLIB = "Pictures are left out, because they need matplotlib: pip install -e '.[plots]'."
_BLUE, _GREY = "#1b6ca8", "#8a8a8a"
_BINS = 10
_LABELLED_CELLS = 12  # classes up to which cells have their counts
_CURVES = 10  # classes up to which each has a curve of its own


class Point(NamedTuple):
    """A model in the picture of score and latency."""

    name: str
    milliseconds: float
    score: float
    is_own: bool


def has_matplotlib() -> bool:
    """Return whether pictures can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def draw_model(
    task: Task, examples: Sequence[Example], predictions: Sequence[Prediction], out: Path
) -> list[Path]:
    """Draw the pictures that a task has, and return their paths."""
    if isinstance(task, SeveralLabels):
        true_NC, _, chances_NC = task.arrays(examples, predictions)
        columns = [(label, true_NC[:, c], chances_NC[:, c]) for c, label in enumerate(task.labels)]
        return [*_draw_curves(columns, out), _draw_calibration(true_NC, chances_NC, out)]
    if isinstance(task, Classification):
        return list(_draw_classes(task, examples, predictions, out))
    if isinstance(task, Regression):
        return [_draw_numbers(*task.arrays(examples, predictions), out)]
    if isinstance(task, Tokens):
        return list(_draw_tags(task, examples, predictions, out))
    return []


def _draw_classes(
    task: Classification, examples: Sequence[Example], predictions: Sequence[Prediction], out: Path
) -> Iterator[Path]:
    true_N, found_N, chances_NC = task.arrays(examples, predictions)
    yield _draw_confusion(true_N, found_N, task.labels, out)
    if len(task.labels) == 2:
        columns = [(task.labels[1], true_N == 1, chances_NC[:, 1])]
    else:
        columns = [(label, true_N == c, chances_NC[:, c]) for c, label in enumerate(task.labels)]
    yield from _draw_curves(columns, out)
    yield _draw_calibration(true_N == found_N, chances_NC.max(1), out)


def _draw_tags(
    task: Tokens, examples: Sequence[Example], predictions: Sequence[Prediction], out: Path
) -> Iterator[Path]:
    kinds = list(dict.fromkeys(_kind(label) for label in task.labels))
    numbers = {kind: number for number, kind in enumerate(kinds)}
    true, found = (
        np.array([numbers[_kind(tag)] for tags in sentences for tag in tags])
        for sentences in ([e.label for e in examples], [p.value for p in predictions])
    )
    yield _draw_confusion(true, found, kinds, out)
    chances = np.array([chance for prediction in predictions for chance in prediction.probability])
    yield _draw_calibration(true == found, chances, out)
    if task.has_entities:
        tags = [list(e.label) for e in examples], [list(p.value) for p in predictions]
        if rows := type_scores(*tags):
            yield _draw_types(rows, out)


def _kind(tag: str) -> str:
    """Return the type of an entity's tag, or the tag itself."""
    return tag[2:] if tag[:2] in ("B-", "I-") else tag


def _draw_confusion(
    true_N: npt.NDArray[Any], found_N: npt.NDArray[Any], labels: Sequence[str], out: Path
) -> Path:
    from sklearn.metrics import confusion_matrix

    counts_CC = confusion_matrix(true_N, found_N, labels=range(len(labels)))
    side = min(12.0, 3.0 + 0.5 * len(labels))
    figure, panel = _figure(side, side)
    shares_CC = counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)
    panel.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    panel.set_xticks(range(len(labels)), labels, rotation=90)
    panel.set_yticks(range(len(labels)), labels)
    panel.set_xlabel("predicted")
    panel.set_ylabel("right")
    if len(labels) <= _LABELLED_CELLS:
        for (row, column), count in np.ndenumerate(counts_CC):
            color = "white" if shares_CC[row, column] > 0.5 else "black"
            panel.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    return _save(figure, out / "confusion_matrix.png")


def _draw_curves(columns: Sequence[tuple[str, Any, Any]], out: Path) -> Iterator[Path]:
    """Draw ROC and precision-recall, a curve a class; of many classes, one over all of them."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    # A class without examples, or without others, has no curve.
    known = [(name, t, c) for name, t, c in columns if 0 < np.sum(t) < len(t)]
    if not known:
        return
    if len(known) > _CURVES:
        true = np.concatenate([t for _, t, _ in known])
        known = [("all classes", true, np.concatenate([c for *_, c in known]))]
    figure, panel = _figure(5, 4.5)
    for name, true, chances in known:
        false_share, true_share, _ = roc_curve(true, chances)
        panel.plot(false_share, true_share, label=name)
    panel.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls="--")
    _finish(panel, "share of others that are taken for it", "share of it that is found")
    yield _save(figure, out / "roc.png")
    figure, panel = _figure(5, 4.5)
    for name, true, chances in known:
        precision, recall, _ = precision_recall_curve(true, chances)
        panel.plot(recall, precision, label=name)
    _finish(panel, "recall", "precision")
    yield _save(figure, out / "precision_recall.png")


def _draw_calibration(right: npt.NDArray[Any], chances: npt.NDArray[Any], out: Path) -> Path:
    """Draw how often predictions of a probability are right: on the diagonal if it is true."""
    from sklearn.calibration import calibration_curve

    figure, panel = _figure(5, 4.5)
    panel.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls="--")
    # Rounding can take a probability a little above 1.
    bounded = np.clip(chances.ravel(), 0, 1)
    flat = right.ravel().astype(int)
    share, mean = calibration_curve(flat, bounded, n_bins=_BINS, pos_label=1)
    panel.plot(mean, share, color=_BLUE, marker="o", label="predictions")
    _finish(panel, "probability that the model gives", "share that is right")
    return _save(figure, out / "calibration.png")


def _draw_numbers(true_N: npt.NDArray[Any], found_N: npt.NDArray[Any], out: Path) -> Path:
    figure, panel = _figure(5, 4.5)
    panel.scatter(true_N, found_N, s=8, color=_BLUE, alpha=0.5)
    panel.set_xlabel("right number")
    panel.set_ylabel("predicted number")
    return _save(figure, out / "scatter.png")


def _draw_types(rows: dict[str, dict[str, float]], out: Path) -> Path:
    figure, panel = _figure(6, 1.5 + 0.4 * len(rows))
    panel.barh(list(rows), [row["f1-score"] for row in rows.values()], color=_BLUE)
    panel.set_xlim(0, 1)
    panel.set_xlabel("F1 of entities")
    return _save(figure, out / "entity_types.png")


def draw_score_latency(points: Sequence[Point], score: str, out: Path) -> Path:
    """Draw score against latency of one text: ours in color, models from elsewhere in grey."""
    figure, panel = _figure(6, 4.5)
    for point in points:
        color = _BLUE if point.is_own else _GREY
        panel.scatter(point.milliseconds, point.score, color=color)
        panel.annotate(
            point.name,
            (point.milliseconds, point.score),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
            color=color,
        )
    panel.set_xscale("log")
    panel.set_xlabel("median milliseconds of one text (CPU)")
    panel.set_ylabel(score)
    panel.margins(0.25)
    return _save(figure, out / "score_latency.png")


def _figure(width: float, height: float) -> tuple[Any, "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _finish(panel: "Axes", x: str, y: str) -> None:
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.02)
    panel.legend(frameon=False, fontsize=8)


def _save(figure: Any, path: Path) -> Path:
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise UserError(f"The picture {path} cannot be written: {error}.") from error
    return path
