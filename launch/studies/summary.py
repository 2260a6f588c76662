"""The table of a study: a row a model, means over seeds and their sample standard deviations."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def render_study(findings: Mapping[str, Any]) -> str:
    """Return the table of a study's findings in Markdown."""
    rows = findings["rows"]
    tasks = list(rows[0]["seeds"][0]["tasks"])
    layer_losses = sorted({kind for row in rows for kind in _layer_losses(row)})
    heads = ["model", "how it was trained", "parameters", "compute", "MLM loss", "MLM accuracy"]
    heads += [f"{kind} loss" for kind in layer_losses]
    # The first trained student is the unit of training compute.
    unit = next((row["training_flops"] for row in rows if row["training_flops"]), 1.0)
    lines = [_line([*heads, *tasks]), _line(["---"] * (len(heads) + len(tasks)))]
    lines += [_line(_cells(row, layer_losses, tasks, unit)) for row in rows]
    return "\n".join([*lines, "", f"Means of {len(rows[0]['seeds'])} seeds ± their deviation."])


def _line(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _layer_losses(row: Row) -> set[str]:
    """Return the names of the layer losses of a row."""
    return {kind for scores in row["seeds"] for kind in scores.get("layer_losses", {})}


def _cells(
    row: Row, layer_losses: Sequence[str], tasks: Sequence[str], unit: float
) -> Iterator[str]:
    yield row["name"]
    yield row["what"]
    yield f"{row['parameters']:,}"
    yield f"{row['training_flops'] / unit:.2f}" if row["training_flops"] else ""
    yield _spread(row, "loss", "{:.3f}")
    yield _spread(row, "accuracy", "{:.1%}")
    for kind in layer_losses:
        found = [scores.get("layer_losses", {}) for scores in row["seeds"]]
        values = [losses[kind] for losses in found if kind in losses]
        yield _mean_and_deviation(values, "{:.3f}") if values else ""
    for task in tasks:
        tests = [scores["tasks"][task]["test"] for scores in row["seeds"]]
        yield _mean_and_deviation(tests, "{:.1%}")


def _spread(row: Row, key: str, form: str) -> str:
    values = [scores[key] for scores in row["seeds"] if key in scores]
    return _mean_and_deviation(values, form) if values else ""


def _mean_and_deviation(values: Sequence[float], form: str) -> str:
    """Return a mean and, of several values, their sample standard deviation."""
    mean = form.format(statistics.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ± {form.format(statistics.stdev(values))}"
