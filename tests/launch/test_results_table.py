"""The README's tables are what the committed reports say, and nothing else."""

import json
from pathlib import Path

import pytest

from launch import results_table
from launch.benchmarks.report import Row, write_findings, write_report
from launch.results_table import (
    BEGIN,
    END,
    RESULTS,
    ROOT,
    STUDY_BEGIN,
    STUDY_END,
    render,
    render_studied,
    replace_table,
)


def table_of(text: str, begin: str, end: str) -> str:
    return text.split(begin)[1].split(end)[0].strip()


@pytest.mark.parametrize(
    ("begin", "end", "table"),
    [(BEGIN, END, render(RESULTS)), (STUDY_BEGIN, STUDY_END, render_studied(RESULTS))],
    ids=["speeds", "study"],
)
def test_the_readme_holds_the_tables_of_the_committed_reports(
    begin: str, end: str, table: str
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table_of(readme, begin, end) == table, "run `python launch/results_table.py`"


def test_a_study_shows_its_table_and_its_machine(tmp_path: Path) -> None:
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
    assert next(line for line in lines if line.startswith("| a training step")) == shown
    assert sum("not measured yet" in line for line in lines) == 5


def test_a_step_measured_on_a_processor_alone_is_still_to_be_measured_on_a_gpu(
    tmp_path: Path,
) -> None:
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


def test_each_of_our_sides_has_a_line_with_every_peer(tmp_path: Path) -> None:
    peers = [
        Row(name=f"peer/{name}/tiny_to_1x64_128", unit="tokens/s", values=(100.0,))
        for name in ("distilbert_all_tokens", "minilm_v2_materialised")
    ]
    ours = [
        Row(name=f"ours/{name}/tiny_to_1x64_128", unit="tokens/s", values=(value,)).against(peers)
        for name, value in (("default", 200.0), ("relations", 400.0))
    ]
    write_report(tmp_path / "distill_card.json", [*peers, *ours])
    lines = [line for line in render(tmp_path).splitlines() if "a distillation step: `" in line]
    assert len(lines) == 2
    assert "`relations/tiny_to_1x64_128` | 400 tokens/s | 4.00 `peer/distilbert_all" in lines[1]
    assert "4.00 `peer/minilm_v2_materialised/tiny_to_1x64_128`" in lines[1]


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
