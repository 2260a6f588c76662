"""`bench.py gpu`: parts in processes of their own, with a time budget, tested on a CPU."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks import gpu
from launch.benchmarks.gpu import Part

# What a machine with a GPU may lack; `None` in `sys.modules` blocks an import.
LACKING = ["datasets", "deepspeed", "nanotoken", "kitoken", "zstandard", "psutil", "tensorboard"]
SIDES = ("ours/default", "ours/relations", "ours/distilbert",
         "peer/distilbert_all_tokens", "peer/minilm_v2_materialised")  # fmt: skip
Parse = Callable[..., argparse.Namespace]
# Stands in for bench.py: writes a report with one row, fails, or hangs.
STAND_IN = """
import json, sys, time
name, path = sys.argv[1], sys.argv[sys.argv.index("--json") + 1]
if name == "hangs":
    time.sleep(60)
if name == "fails":
    print("out of memory")
    sys.exit(3)
row = {"name": f"ours/{name}", "unit": "ms", "median": 2.0, "min": 1.0, "max": 3.0}
row |= {"peak_bytes": None, "ratio": {"peer/a": 1.5}}
with open(path, "w") as file:
    json.dump({"gpu": "a card", "rows": [row]}, file)
"""


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    def parsed(*words: str) -> argparse.Namespace:
        return _parser("gpu").parse_args(["gpu", "--out", str(tmp_path / "out"), *words])

    return parsed


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace bench.py by a script, simulate a GPU; return the report folder."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setattr(gpu, "_BENCH", script)
    monkeypatch.setattr(gpu, "has_gpu", lambda: True)
    return tmp_path / "out"


def set_parts(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(gpu, "PARTS", tuple(Part(name, (name,), 1) for name in names))


def test_gpu_refuses_machine_without_gpu(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU is refused in one sentence."""
    monkeypatch.setattr(gpu, "has_gpu", lambda: False)
    with pytest.raises(UserError, match=r"needs a GPU, and torch finds none"):
        gpu.run_command_line(parse())


def test_gpu_dry_run_lists_commands(
    parse: Parse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run prints the command and time limit of each part, and runs nothing."""
    gpu.run_command_line(parse("--dry-run", "--minutes", "5", "--quick"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(gpu.PARTS)
    for line, part in zip(lines, gpu.PARTS, strict=True):
        assert " ".join(part.words) in line and f"{part.name}.json --quick" in line
    limits = [float(line.split()[2]) for line in lines]
    assert sum(limits) == pytest.approx(300, abs=2)
    assert not (tmp_path / "out").exists()


def test_gpu_parts_cover_all_subjects(parse: Parse) -> None:
    """Kernels, train (base and large) and distill are parts whose options are valid."""
    subjects = [_parser(part.words[0]).parse_args(part.words).benchmark for part in gpu.PARTS]
    assert set(subjects) == {"kernels", "train", "distill"}
    assert {"base", "large"} <= {word for part in gpu.PARTS for word in part.words}


def test_gpu_writes_reports_and_table(
    stand_in: Path,
    parse: Parse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each part leaves a report, and all rows are printed and written together."""
    set_parts(monkeypatch, "kernels", "train_base")
    gpu.run_command_line(parse("--json", str(stand_in / "all.json")))
    assert "ours/kernels" in (shown := capsys.readouterr().out) and "1.50 x peer/a" in shown
    for name in ("kernels", "train_base"):
        (row,) = json.loads((stand_in / f"{name}.json").read_text(encoding="utf-8"))["rows"]
        assert row["name"] == f"ours/{name}"
    together = json.loads((stand_in / "all.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in together["rows"]] == ["ours/kernels", "ours/train_base"]


def test_gpu_continues_after_failed_part(
    stand_in: Path,
    parse: Parse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A part that fails leaves its error in its report; the others run, and the exit code is 1."""
    set_parts(monkeypatch, "fails", "train_base")
    with pytest.raises(SystemExit) as ended:
        gpu.run_command_line(parse())
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert "ours/train_base" in shown.out
    assert "error: fails failed: code 3: out of memory" in shown.err
    report = json.loads((stand_in / "fails.json").read_text(encoding="utf-8"))
    assert report["error"] == "code 3: out of memory" and report["rows"] == []
    assert {"gpu", "device", "versions", "commit"} <= set(report)


def test_gpu_stops_part_at_its_share(
    stand_in: Path, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that hangs is stopped after its share of the time; the rest goes to the others."""
    set_parts(monkeypatch, "hangs", "train_base")
    reports = gpu.run_parts(gpu.PARTS, parse("--minutes", "0.1"))
    assert "stopped after 3 s" in reports["hangs"]["error"]
    assert reports["train_base"]["rows"]


@pytest.mark.story
def test_gpu_runs_real_benchmarks(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real commands of the parts leave reports, here with tiny sizes on a CPU.

    They need none of the packages that a machine with a GPU may lack.
    """
    small = ("--micro-tokens", "256", "--steps", "1")
    parts = (
        Part("kernels", ("kernels", "--sizes", "tiny"), 1),
        Part("train", ("train", "--shape", "tiny", *small), 1),
        Part("distill", ("distill", "--teacher-shape", "tiny", "--student-width", "64", *small), 1),
        Part("wrong", ("train", "--shape", "tiny", "--row-tokens", "100"), 1),
    )
    blocked = f"import sys; sys.modules.update(dict.fromkeys({LACKING!r}))"
    (tmp_path / "sitecustomize.py").write_text(blocked, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    reports = gpu.run_parts(parts, parse("--quick", "--minutes", "5"))
    names = {part: {row["name"] for row in found["rows"]} for part, found in reports.items()}
    assert "peer/bias_gelu/eager/tiny" in names["kernels"]
    assert {"ours/packed/tiny_128", "peer/hf_sdpa/tiny_128"} <= names["train"]
    assert {f"{name}/tiny_to_1x64_128" for name in SIDES} <= names["distill"]
    assert "must be a multiple of --row-tokens" in reports["wrong"]["error"]
