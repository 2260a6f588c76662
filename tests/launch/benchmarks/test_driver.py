"""The benchmark driver: sides in turns, and the time and memory of processes."""

from functools import partial
from pathlib import Path

import pytest

from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks.driver import Run, measure_in_turns, process_side, row_of

# A side that holds 150 MB in a child process, and nothing in the process that starts it.
SIDE = """
import subprocess, sys
def held(job, work):
    code = "import time; block = bytearray(150_000_000); time.sleep(1)"
    subprocess.run([sys.executable, "-c", code], check=True)
    return {"tokens": job["tokens"]}
SIDES = {"ours/held": held, "fails": lambda job, work: sys.exit("no such corpus")}
"""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for work; a module with sides can be imported."""
    (tmp_path / "a_side.py").write_text(SIDE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "scratch"


def test_memory_includes_child_processes(scratch: Path) -> None:
    """The memory of a side includes its child processes."""
    found = process_side("a_side", "ours/held", {"tokens": 7}, scratch)()
    assert found.result["tokens"] == 7
    assert found.result["processes"] >= 2
    assert 150e6 < found.result["largest_bytes"] < (found.peak_bytes or 0) < 300e6
    assert found.seconds > 1.0
    assert not (scratch / "work").exists()


def test_failed_side_shows_last_line(scratch: Path) -> None:
    """A side that fails is named with the last line of its output."""
    with pytest.raises(UserError, match=r"fails ended with code 1: no such corpus"):
        process_side("a_side", "fails", {}, scratch)()


def test_sides_run_in_turns() -> None:
    """Sides run in turns, round by round; a row has a value of each run and the peak of all."""
    order: list[str] = []

    def run(name: str) -> Run:
        order.append(name)
        return Run(seconds=len(order), peak_bytes=10 * len(order))

    found = measure_in_turns({name: partial(run, name) for name in ("a", "b")}, 2)
    assert order == ["a", "b", "a", "b"]
    row = row_of("ours/a", "ms", found["a"], lambda run: 1000 * run.seconds)
    assert row.values == (1000, 3000) and row.peak_bytes == 30


@pytest.mark.parametrize(
    "words",
    ["prep --repeat 0", "prep --memory-mb 10,0", "prep --memory-mb ten", "loader --rows -1",
     "train --steps 0", "kernels --calls 0", "distill --student-layers 0", "gpu --minutes 0"],
)  # fmt: skip
def test_invalid_numbers_are_refused(words: str) -> None:
    """A number that must be above 0 is refused in one sentence that names its option."""
    benchmark, option, _ = words.split()
    with pytest.raises(UserError, match=option):
        _parser(benchmark).parse_args(words.split())


@pytest.mark.parametrize("benchmark", ["prep", "loader", "kernels", "train", "distill", "gpu"])
def test_help_is_one_screen(benchmark: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Help of a benchmark says what its rows are."""
    with pytest.raises(SystemExit):
        _parser(benchmark).parse_args([benchmark, "--help"])
    shown = capsys.readouterr().out
    assert "--json" in shown and len(shown.splitlines()) < 60
