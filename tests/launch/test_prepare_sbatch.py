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


def test_an_array_task_takes_its_share_with_a_worker_for_every_core(tmp_path: Path) -> None:
    ended = start(tmp_path, *WORDS, cpus_per_task=8, **array_of(3, 32, 31))
    assert ended.returncode == 0, ended.stderr
    share = ["--task", "3", "--of", "32"]
    assert ended.stdout.splitlines() == ["launch/prepare_data.py", "workers=8", *share, *WORDS]


def test_the_workers_that_a_user_names_come_last_and_so_win(tmp_path: Path) -> None:
    ended = start(tmp_path, *WORDS, "workers=2", cpus_per_task=8, **array_of(0, 1, 0))
    named = [word for word in ended.stdout.splitlines() if word.startswith("workers=")]
    assert named == ["workers=8", "workers=2"]


def test_the_merge_job_is_no_share_of_the_input(tmp_path: Path) -> None:
    ended = start(tmp_path, *WORDS, "--merge", cpus_per_task=1)
    assert ended.stdout.splitlines() == ["launch/prepare_data.py", "workers=1", *WORDS, "--merge"]


def test_some_tasks_are_started_again_as_shares_of_the_whole(tmp_path: Path) -> None:
    ended = start(tmp_path, *WORDS, stillhouse_tasks="32", **array_of(19, 2, 19))
    assert ended.stdout.splitlines()[2:6] == ["--task", "19", "--of", "32"]


@pytest.mark.parametrize(("count", "largest"), [(2, 19), (32, 32), (16, 30)])
def test_an_array_that_does_not_say_how_many_share_the_input_is_refused(
    count: int, largest: int, tmp_path: Path
) -> None:
    ended = start(tmp_path, *WORDS, **array_of(largest, count, largest))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: this array goes up to {largest} and has {count} task")
    assert "STILLHOUSE_TASKS" in ended.stderr and ended.stderr.count("\n") == 1


def test_a_failed_task_fails_its_job_so_that_the_merge_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_CODE", "2")
    assert start(tmp_path, *WORDS, **array_of(0, 4, 3)).returncode == 2


def test_usage_is_printed_when_no_recipe_is_named(tmp_path: Path) -> None:
    ended = start(tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: sbatch")


def test_the_header_shows_two_commands_that_differ_in_the_merge_alone() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    array, merge = re.findall(r"^#       launch/slurm/prepare\.sbatch (.*?)\)?\"?$", text, re.M)
    assert merge == f"{array} --merge"
    assert "--export" not in text, "variables of the user's shell are passed on"
