"""The committed tables are what the committed reports say, and nothing else."""

import json
from pathlib import Path

import pytest

from launch import results_table
from launch.benchmarks.report import Row, write_findings
from launch.results_table import (
    CONTINUED,
    FIGURES,
    README,
    RESULTS,
    SPEEDS,
    STUDY,
    default_target,
    markers,
    render,
    render_continued,
    render_figures,
    render_studied,
    replace_table,
)


def table_of(text: str, name: str) -> str:
    begin, end = markers(name)
    return text.split(begin)[1].split(end)[0].strip()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        (SPEEDS, render(RESULTS)),
        (STUDY, render_studied(RESULTS)),
        (CONTINUED, render_continued(RESULTS)),
    ],
)
def test_committed_tables_match_reports(name: str, table: str) -> None:
    """The documentation holds the tables of the committed reports."""
    text = default_target().read_text(encoding="utf-8")
    assert table_of(text, name) == table, "run `python launch/results_table.py`"


def test_readme_figures_match_reports(tmp_path: Path) -> None:
    """The README holds the three figures of the committed reports; none is made up without."""
    assert table_of(README.read_text(encoding="utf-8"), FIGURES) == render_figures(RESULTS)
    assert render_figures(tmp_path).count("not measured yet") == 3


def test_default_target_prefers_docs_page(tmp_path: Path) -> None:
    """Tables go to docs/benchmarks.md where it exists, else to README.md."""
    assert default_target(tmp_path) == tmp_path / "README.md"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "benchmarks.md").touch()
    assert default_target(tmp_path) == tmp_path / "docs" / "benchmarks.md"


def test_study_table_names_machine(tmp_path: Path) -> None:
    """A study's table is followed by the machine that it was measured on."""
    assert "not measured yet" in render_studied(tmp_path)
    seeds = [{"seed": 0, "loss": 4.5, "accuracy": 0.2, "tasks": {"news": {"test": 0.75}}}]
    row = {"name": "soft", "what": "s", "parameters": 10, "training_flops": 1.0, "seeds": seeds}
    findings = {"budget": {}, "rows": [row]}
    write_findings(tmp_path / "study_simplewiki.json", findings)
    device = json.loads((tmp_path / "study_simplewiki.json").read_text())["device"]
    shown = render_studied(tmp_path)
    assert "| soft | s | 10 | 1.00 | 4.500 | 20.0% | 75.0% |" in shown
    assert shown.endswith(f"On {device}.")
    write_findings(tmp_path / "study_base.json", findings)
    assert render_studied(tmp_path).count("| soft |") == 2


def test_missing_reports_are_unmeasured(tmp_path: Path) -> None:
    """What has no report is not measured yet."""
    lines = render(tmp_path / "none").splitlines()[2:]
    assert len(lines) == 5
    assert all("not measured yet" in line for line in lines)


def test_report_line_shows_ratios(tmp_path: Path) -> None:
    """A line shows one of our rows with what it was compared with."""
    peer = Row(name="peer/hf_sdpa/base_128", unit="tokens/s", values=(100_000.0,))
    ours = Row(
        name="ours/packed/base_128", unit="tokens/s", values=(250_000.0,), peak_bytes=3 * 10**9
    ).against([peer])
    share = Row(name="ours/packed/base_128/mfu", unit="% of peak", values=(40.0,))
    write_findings(
        tmp_path / "train_card.json", {"rows": [row.to_json() for row in [peer, ours, share]]}
    )
    device = json.loads((tmp_path / "train_card.json").read_text())["device"]
    lines = render(tmp_path).splitlines()
    shown = (
        "| a training step: `packed/base_128` | 250,000 tokens/s, 3.00 GB | "
        f"2.50 `peer/hf_sdpa/base_128` | {device} (`train_card.json`) |"
    )
    assert next(line for line in lines if line.startswith("| a training step")) == shown
    assert sum("not measured yet" in line for line in lines) == 5


def test_cpu_report_still_lacks_gpu(
    tmp_path: Path,
) -> None:
    """A step measured on a processor alone is still to be measured on a GPU."""
    peer = Row(name="peer/hf", unit="tokens/s", values=(1.0,))
    ours = Row(name="ours/packed", unit="tokens/s", values=(2.0,)).against([peer])
    for name, device in (("train_card", "NVIDIA H100"), ("distill_laptop", None)):
        report = {"gpu": device, "device": device or "a laptop", "rows": [ours.to_json()]}
        (tmp_path / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    lines = render(tmp_path).splitlines()
    assert [line for line in lines if "a training step" in line and "not measured" in line] == []
    both = [line for line in lines if "a distillation step" in line]
    assert "2.00 `peer/hf`" in both[0]
    assert "not measured yet on a GPU" in both[1]


def test_every_own_side_has_a_line(tmp_path: Path) -> None:
    """Each of our sides has a line with its ratio to every peer."""
    peers = [
        Row(name=f"peer/{name}/tiny_to_1x64_128", unit="tokens/s", values=(100.0,))
        for name in ("distilbert_all_tokens", "minilm_v2_materialised")
    ]
    ours = [
        Row(name=f"ours/{name}/tiny_to_1x64_128", unit="tokens/s", values=(value,)).against(peers)
        for name, value in (("default", 200.0), ("relations", 400.0))
    ]
    write_findings(
        tmp_path / "distill_card.json", {"rows": [row.to_json() for row in [*peers, *ours]]}
    )
    lines = [line for line in render(tmp_path).splitlines() if "a distillation step: `" in line]
    assert len(lines) == 2
    assert "`relations/tiny_to_1x64_128` | 400 tokens/s | 4.00 `peer/distilbert_all" in lines[1]
    assert "4.00 `peer/minilm_v2_materialised/tiny_to_1x64_128`" in lines[1]


def test_replace_table_keeps_surrounding_text() -> None:
    """Only what lies between the markers of a name is replaced."""
    begin, end = markers("speeds")
    text = f"before\n{begin}\nold\n{end}\nafter\n"
    assert replace_table(text, "new", "speeds") == f"before\n{begin}\nnew\n{end}\nafter\n"
    again = replace_table(replace_table(text, "x", "speeds"), "new", "speeds")
    assert again == replace_table(text, "new", "speeds")


def test_target_and_markers_are_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line chooses the file and the names of the markers in it."""
    page = tmp_path / "page.md"
    page.write_text("\n".join([*markers("a"), *markers("b")]), encoding="utf-8")
    words = ["--into", str(page), "--speeds-marker", "a", "--study-marker", "b"]
    monkeypatch.setattr("sys.argv", ["results_table.py", *words])
    results_table.main()
    text = page.read_text(encoding="utf-8")
    assert table_of(text, "a") == render(RESULTS)
    assert table_of(text, "b") == render_studied(RESULTS)


def test_target_without_markers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without the markers is refused and left as it is."""
    page = tmp_path / "page.md"
    page.write_text("nothing", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["results_table.py", "--into", str(page)])
    with pytest.raises(SystemExit, match=r"page\.md has no lines"):
        results_table.main()
    assert page.read_text(encoding="utf-8") == "nothing"


def test_failed_report_counts_as_unmeasured(tmp_path: Path) -> None:
    """The report of a part that failed adds no line and measures nothing."""
    report = {"gpu": "a card", "device": "a card", "rows": [], "error": "out of memory"}
    (tmp_path / "train_base.json").write_text(json.dumps(report), encoding="utf-8")
    assert render(tmp_path) == render(tmp_path / "none")


def test_continued_models_have_a_line_each(tmp_path: Path) -> None:
    """Each model of a report has its held-out loss and accuracy, by the name of its folder."""
    assert render_continued(tmp_path) == "not measured yet"
    models = [{"name": "before", "loss": 2.34567, "accuracy": 0.4567}]
    report = {"corpus": "runs/novels", "device": "a CPU", "models": models}
    (tmp_path / "continued_novels.json").write_text(json.dumps(report), encoding="utf-8")
    line = render_continued(tmp_path).splitlines()[2]
    assert line == "| runs/novels | before | 2.346 | 45.7% | a CPU (`continued_novels.json`) |"
