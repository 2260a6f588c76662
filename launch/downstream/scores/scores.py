"""Scores of predictions, and how sure they are: over seeds, and over the choice of examples."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.counter_rng import integers_below, key_of

_RESAMPLES = 500
_INTERVAL = (2.5, 97.5)  # percentiles: 95 of 100 such intervals hold the score of all texts
# Scores of which less is better: a share of the teacher's would mislead.
_ERRORS = ("mse", "mae")


@dataclass(frozen=True)
class Scores:
    """Scores by name, and why others are not defined."""

    values: dict[str, float]
    undefined: dict[str, str] = field(default_factory=dict)


def bootstrap(
    scores_of: Callable[[npt.NDArray[np.int64]], Mapping[str, float]], size: int
) -> dict[str, tuple[float, float]]:
    """Return the percentile interval of each score over examples drawn again with replacement.

    Args:
        scores_of: scores of the examples with some indices; one that is not defined is left out.
        size: number of examples.
    """
    found: dict[str, list[float]] = {}
    for round_ in range(_RESAMPLES):
        indices = integers_below(key_of("bootstrap", round_), np.arange(size), size)
        for name, value in scores_of(indices).items():
            found.setdefault(name, []).append(value)
    return {
        name: (float(low), float(high))
        for name, values in found.items()
        for low, high in [np.percentile(values, _INTERVAL)]
    }


def spread(
    per_seed: Sequence[Scores], intervals: Mapping[str, tuple[float, float]]
) -> dict[str, dict[str, Any]]:
    """Return median, minimum and maximum of each score over seeds, and the values.

    A score that a seed does not define is null there; the others make the median.
    """
    names = dict.fromkeys(name for scores in per_seed for name in scores.values)
    table: dict[str, dict[str, Any]] = {}
    for name in names:
        values = [scores.values.get(name) for scores in per_seed]
        known = [value for value in values if value is not None]
        table[name] = {
            "median": statistics.median(known),
            "min": min(known),
            "max": max(known),
            "per_seed": values,
        }
        if name in intervals:
            table[name]["interval"] = list(intervals[name])
    return table


def median_index(values: Sequence[float]) -> int:
    """Return the index of the median; of an even number, that of the lower one."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    return order[(len(order) - 1) // 2]


def retention(
    student: Mapping[str, Mapping[str, Any]], teacher: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, float], list[str]]:
    """Return the share of the teacher's median that a student keeps, by score.

    Returns:
        the shares, and the scores that have none: errors, and those where the teacher's is 0 or
        below.
    """
    shares, without = {}, []
    for name, own in student.items():
        if name in _ERRORS or name not in teacher:
            continue
        if teacher[name]["median"] > 0:
            shares[name] = own["median"] / teacher[name]["median"]
        else:
            without.append(name)
    return shares, without
