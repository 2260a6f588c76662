"""Setting up: immediate when nothing has changed; one sentence about a machine that cannot."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A folder that the script takes for a finished environment, and an empty operator cache."""
    venv, cache = tmp_path / "venv", tmp_path / "extensions"
    (venv / "bin").mkdir(parents=True)
    (cache / "py_cpu" / "operator").mkdir(parents=True)
    made_from = f"{ROOT}\n".encode()
    made_from += (ROOT / "pyproject.toml").read_bytes()
    made_from += (ROOT / "launch" / "constraints.txt").read_bytes()
    stamp = subprocess.run(["cksum"], input=made_from, check=True, capture_output=True).stdout
    (venv / ".stillhouse-stamp").write_bytes(stamp)
    return {**os.environ, "VENV": str(venv), "TORCH_EXTENSIONS_DIR": str(cache)}


def source_it(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = "set -euo pipefail; source launch/setup_venv.sh; echo $VIRTUAL_ENV $PATH"
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def lock_of(environment: dict[str, str]) -> Path:
    return Path(environment["TORCH_EXTENSIONS_DIR"]) / "py_cpu" / "operator" / "lock"


def test_unchanged_environment_is_activated(
    environment: dict[str, str],
) -> None:
    """An environment whose inputs are unchanged is activated without an installation."""
    result = source_it(environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{environment['VENV']} {environment['VENV']}/bin:")
    assert result.stderr == ""


def test_stale_build_lock_is_removed(environment: dict[str, str]) -> None:
    """A lock that a killed build left is removed and named."""
    lock = lock_of(environment)
    lock.touch()
    result = source_it(environment)
    assert result.returncode == 0
    assert f"Removing {lock}" in result.stderr
    assert not lock.exists()


def test_lock_of_running_build_stays(environment: dict[str, str]) -> None:
    """A lock that a running build holds open stays."""
    with lock_of(environment).open("w"):
        result = source_it(environment)
        assert lock_of(environment).exists()
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("PYTHON", "no-such-python", "There is no no-such-python"),
        ("PYTHON", "old-python", "Python 3.8.1 is too old"),
        ("CXX", "no-such-compiler", "There is no C++ compiler"),
    ],
)
def test_unfit_machine_is_one_sentence(
    environment: dict[str, str], variable: str, value: str, sentence: str, tmp_path: Path
) -> None:
    """A machine without Python 3.11 or a C++ compiler is refused in one sentence."""
    old_python = tmp_path / "old-python"
    old_python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1 || exit 1\n')
    old_python.chmod(0o755)
    fresh = {**environment, "VENV": str(tmp_path / "fresh"), variable: value}
    fresh["PATH"] = f"{tmp_path}:{fresh['PATH']}"
    result = source_it(fresh)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {sentence}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "fresh").exists()
