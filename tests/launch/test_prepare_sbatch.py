"""The array job that prepares a corpus: what its tasks run, and which arrays it refuses."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "slurm" / "prepare.sbatch"
WORDS = ("--config", "recipe.yaml", "input.path=my text")


def start(
    folder: Path, *words: str, stillhouse_tasks: str = "", **array: int
) -> subprocess.CompletedProcess[str]:
    """Run the script as Slurm would, with a stand-in for python that prints its words by line."""
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    python = binaries / "python"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\nexit "${PYTHON_CODE:-0}"\n')
    python.chmod(0o755)
    variables = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    variables["PATH"] = f"{binaries}{os.pathsep}{variables['PATH']}"
    variables |= {f"SLURM_{name.upper()}": str(value) for name, value in array.items()}
    if stillhouse_tasks:
        variables["STILLHOUSE_TASKS"] = stillhouse_tasks
    return subprocess.run(
        ["bash", str(SCRIPT), *words], cwd=folder, env=variables, capture_output=True, text=True
    )


def array_of(task: int, count: int, largest: int) -> dict[str, int]:
    return {"array_task_id": task, "array_task_count": count, "array_task_max": largest}


def test_array_task_takes_its_share(tmp_path: Path) -> None:
    """An array task prepares its share with one worker for each core."""
    ended = start(tmp_path, *WORDS, cpus_per_task=8, **array_of(3, 32, 31))
    assert ended.returncode == 0, ended.stderr
    share = ["--task", "3", "--of", "32"]
    assert ended.stdout.splitlines() == ["launch/prepare_data.py", "workers=8", *share, *WORDS]


def test_user_workers_win(tmp_path: Path) -> None:
    """`workers=` of the user comes last and wins."""
    ended = start(tmp_path, *WORDS, "workers=2", cpus_per_task=8, **array_of(0, 1, 0))
    named = [word for word in ended.stdout.splitlines() if word.startswith("workers=")]
    assert named == ["workers=8", "workers=2"]


def test_merge_job_has_no_share(tmp_path: Path) -> None:
    """The merge job is given no share of the input."""
    ended = start(tmp_path, *WORDS, "--merge", cpus_per_task=1)
    assert ended.stdout.splitlines() == ["launch/prepare_data.py", "workers=1", *WORDS, "--merge"]


def test_partial_array_keeps_shares(tmp_path: Path) -> None:
    """Tasks that are submitted again are shares of the whole input."""
    ended = start(tmp_path, *WORDS, stillhouse_tasks="32", **array_of(19, 2, 19))
    assert ended.stdout.splitlines()[2:6] == ["--task", "19", "--of", "32"]


@pytest.mark.parametrize(("count", "largest"), [(2, 19), (32, 32), (16, 30)])
def test_ambiguous_array_is_refused(count: int, largest: int, tmp_path: Path) -> None:
    """An array whose indices exceed its number of tasks is refused with the variable to set."""
    ended = start(tmp_path, *WORDS, **array_of(largest, count, largest))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: this array goes up to {largest} and has {count} task")
    assert "STILLHOUSE_TASKS" in ended.stderr and ended.stderr.count("\n") == 1


def test_failed_task_fails_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed task fails its job, so that the merge does not start."""
    monkeypatch.setenv("PYTHON_CODE", "2")
    assert start(tmp_path, *WORDS, **array_of(0, 4, 3)).returncode == 2


def test_usage_without_recipe(tmp_path: Path) -> None:
    """The usage is printed when no recipe is named."""
    ended = start(tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: sbatch")


def test_header_commands_differ_in_merge() -> None:
    """The two commands of the header differ in --merge alone."""
    text = SCRIPT.read_text(encoding="utf-8")
    array, merge = re.findall(r"^#       launch/slurm/prepare\.sbatch (.*?)\)?\"?$", text, re.M)
    assert merge == f"{array} --merge"
    assert "--export" not in text, "variables of the user's shell are passed on"
