"""Rows, ratios, tables and reports of benchmarks."""

import json
from pathlib import Path

import pytest

from data_prep.errors import UserError
from launch.benchmarks.report import Row, compare, print_table, ratio_of, write_findings


def row(name: str, *values: float) -> Row:
    return Row(name=name, unit="tokens/s", values=values)


def test_ratio_pairs_rounds() -> None:
    """A ratio is the median over rounds of the ratios of the figures of a round."""
    # The machine was slow in the second round, for both: the medians alone would say 2.5.
    ours, peer = row("ours/a", 10.0, 2.0, 50.0), row("peer/b", 5.0, 1.0, 4.0)
    assert ratio_of(ours, peer) == 2.0
    assert ours.against([peer]).ratio == {"peer/b": 2.0}


def test_compare_puts_ours_last() -> None:
    """Our rows come last, with ratios to all others or to the named ones."""
    ours, peer, limit = row("ours/a", 4.0), row("peer/b", 2.0), row("limit/c", 8.0)
    rows = compare([ours, peer, limit])
    assert [row.name for row in rows] == ["peer/b", "limit/c", "ours/a"]
    assert rows[-1].ratio == {"peer/b": 2.0, "limit/c": 0.5}
    assert compare([ours, peer, limit], {"ours/a": ["peer/b"]})[-1].ratio == {"peer/b": 2.0}


def test_report_fields_are_stable(tmp_path: Path) -> None:
    """The report has the documented fields."""
    path = tmp_path / "results" / "found.json"
    ours = row("ours/a", 3.0, 1.0, 2.0).against([row("peer/b", 1.0, 1.0, 1.0)])
    write_findings(path, {"rows": [ours.to_json()]})
    report = json.loads(path.read_text(encoding="utf-8"))
    assert set(report) == {"gpu", "device", "versions", "commit", "rows"}
    assert report["versions"]["tokenizers"] and "core" in report["device"]
    figures = {"median": 2.0, "min": 1.0, "max": 3.0, "peak_bytes": None}
    expected = {"name": "ours/a", "unit": "tokens/s", **figures, "ratio": {"peer/b": 2.0}}
    assert report["rows"] == [expected]


def test_unwritable_report_is_refused(tmp_path: Path) -> None:
    """A report that cannot be written is an error of one sentence."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="correct --json"):
        write_findings(tmp_path / "file" / "found.json", {"rows": []})


def test_table_columns_align(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns of the printed table are aligned."""
    rows = [row("ours/long_name", 1234567.0), row("peer/b", 0.5)]
    print_table([row.to_json() for row in rows])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.index("unit") == first.index("tokens/s") == second.index("tokens/s")
    assert "1,234,567" in first and "0.50" in second
