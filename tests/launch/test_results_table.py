"""The README's table of speeds is what the committed reports say, and nothing else."""

import json
from pathlib import Path

import pytest

from launch import results_table
from launch.benchmarks.report import Row, write_report
from launch.results_table import BEGIN, END, RESULTS, ROOT, render, replace_table


def table_of(text: str) -> str:
    return text.split(BEGIN)[1].split(END)[0].strip()


def test_the_readme_holds_the_table_of_the_committed_reports() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table_of(readme) == render(RESULTS), "run `python launch/results_table.py`"


def test_what_has_no_report_is_not_measured_yet(tmp_path: Path) -> None:
    lines = render(tmp_path / "none").splitlines()[2:]
    assert len(lines) == 5
    assert all("not measured yet" in line for line in lines)


def test_a_report_shows_our_rows_with_what_they_were_compared_with(tmp_path: Path) -> None:
    peer = Row(name="peer/hf_sdpa/base_128", unit="tokens/s", values=(100_000.0,))
    ours = Row(
        name="ours/packed/base_128", unit="tokens/s", values=(250_000.0,), peak_bytes=3 * 10**9
    ).against([peer])
    share = Row(name="ours/packed/base_128/mfu", unit="% of peak", values=(40.0,))
    write_report(tmp_path / "train_card.json", [peer, ours, share])
    device = json.loads((tmp_path / "train_card.json").read_text())["device"]
    lines = render(tmp_path).splitlines()
    shown = (
        "| a training step: `packed/base_128` | 250,000 tokens/s, 3.00 GB | "
        f"2.50 `peer/hf_sdpa/base_128` | {device} |"
    )
    assert [line for line in lines if line.startswith("| a training step")] == [shown]
    assert sum("not measured yet" in line for line in lines) == 4


def test_only_what_lies_between_the_markers_is_replaced() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_table(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert replace_table(replace_table(text, "x"), "new") == replace_table(text, "new")


def test_a_readme_without_the_markers_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_table, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(SystemExit, match="no lines"):
        results_table.main()
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "nothing"
