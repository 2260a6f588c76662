"""The table of a study says what was measured, with its spread."""

from typing import Any

from launch.studies.summary import render_study


def scores(seed: int, loss: float | None, test: float) -> dict[str, Any]:
    words = {} if loss is None else {"loss": loss, "accuracy": loss / 100}
    return {"seed": seed, **words, "tasks": {"news": {"rate": 1e-4, "dev": 0.9, "test": test}}}


def row(name: str, flops: float, *seeds: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "what": f"what {name} is",
        "parameters": 1234567,
        "training_flops": flops,
        "seeds": list(seeds),
    }


FINDINGS = {
    "rows": [
        row("teacher", 0.0, scores(0, 4.5, 0.8), scores(1, 4.5, 0.9)),
        row("untrained", 0.0, scores(0, None, 0.5), scores(1, None, 0.5)),
        row("none", 2e12, scores(0, 5.0, 0.7), scores(1, 6.0, 0.7)),
        row("default", 3e12, scores(0, 4.0, 0.8), scores(1, 4.2, 0.8)),
    ]
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_row_shows_means_and_deviations() -> None:
    """A row shows means and sample standard deviations."""
    table, _, note = render_study(FINDINGS).rpartition("\n\n")
    head, _, teacher, untrained, none, default = map(cells, table.splitlines())
    assert note == "Means of 2 seeds ± their deviation."
    assert head[-1] == "news"
    # Two values a, b have the mean (a + b) / 2 and the sample deviation |a - b| / sqrt(2).
    assert teacher[-3:] == ["4.500 ± 0.000", "4.5% ± 0.0%", "85.0% ± 7.1%"]
    assert untrained == ["untrained", "what untrained is", "1,234,567", "", "", "", "50.0% ± 0.0%"]
    assert none[3:5] == ["1.00", "5.500 ± 0.707"]
    assert default[3:5] == ["1.50", "4.100 ± 0.141"]


def test_lines_have_equal_cell_counts() -> None:
    """All lines of the table have the same number of cells."""
    lines = render_study(FINDINGS).split("\n\n")[0].splitlines()
    assert len({len(cells(line)) for line in lines}) == 1


def test_layer_losses_have_a_column() -> None:
    """Held-out losses of layers have a column where a row has them."""
    trained = {**scores(0, None, 0.8), "layer_losses": {"relations": 0.5}}
    rows = [row("teacher", 0.0, scores(0, None, 0.9)), row("ours", 1e12, trained)]
    head, _, teacher, ours = map(cells, render_study({"rows": rows}).split("\n\n")[0].splitlines())
    assert head[6] == "relations loss"
    assert teacher[6] == "" and ours[6] == "0.500"
