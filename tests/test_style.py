"""The style guide, as far as tools can read it; pre-commit runs the same tools."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("data_prep", "pretrain", "launch")
LINT_IMPORTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
CHECKS = {
    "lint": ["-m", "ruff", "check", "--no-cache"],
    "format": ["-m", "ruff", "format", "--check", "--no-cache"],
    "types": ["-m", "mypy"],
    "imports": ["-c", LINT_IMPORTS],
}


def sources(*folders: str) -> list[Path]:
    """Return the Python files of some folders."""
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def files_with(pattern: str) -> set[str]:
    """Return the source files in which a pattern occurs."""
    found = (file for file in sources(*PACKAGES) if re.search(pattern, file.read_text("utf-8")))
    return {str(file.relative_to(ROOT)) for file in found}


@pytest.mark.parametrize("check", CHECKS)
def test_source_passes(check: str) -> None:
    """Linter, formatter, type checker and import contracts have nothing to say."""
    result = subprocess.run(
        [sys.executable, *CHECKS[check]], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_shell_scripts_pass() -> None:
    """Shellcheck finds no warning in any script."""
    scripts = [
        *ROOT.glob("launch/*.sh"),
        *ROOT.glob("launch/slurm/*"),
        *ROOT.glob("tests/*.sh"),
        ROOT / ".ci" / "run",
    ]
    shellcheck = Path(sys.executable).with_name("shellcheck")
    result = subprocess.run(
        [shellcheck, "--severity=warning", *scripts], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_source_files_are_short() -> None:
    """No file has more than 400 lines."""
    files = sources(*PACKAGES, "tests")
    assert len(files) > 10
    assert [file.name for file in files if len(file.read_text("utf-8").splitlines()) > 400] == []


def test_folders_are_small() -> None:
    """No folder has more than 14 files: one reads a listing at a glance."""
    folders = {file.parent for file in sources("data_prep", "pretrain")}
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len([f for f in folder.glob("*.py") if f.name != "__init__.py"])) > 14
    }
    assert crowded == {}


def test_one_file_imports_tensorboard() -> None:
    """Only the logger imports TensorBoard."""
    assert files_with(r"(from|import) [\w.]*tensorboard") == {"pretrain/monitoring/logger.py"}


def test_one_file_reads_slurm_variables() -> None:
    """Only `distributed.py` reads the variables of SLURM."""
    assert files_with(r"[\"']SLURM_") == {"pretrain/distributed.py"}
