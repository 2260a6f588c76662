"""A Python without the packages: every entry point says so in the same sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.command_line import packages
from launch.command_line.errors import run_command

ROOT = Path(__file__).parents[3]
SCRIPTS = [
    path.name
    for path in sorted((ROOT / "launch").glob("*.py"))
    if "with packages_required():" in path.read_text(encoding="utf-8")
]


def test_every_command_requires_its_packages() -> None:
    """All commands that a person types are among those checked below."""
    commands = "bench compare distill_student plot prepare_data publish_student study"
    commands += " train_teacher write_teacher_cache"
    assert {f"{name}.py" for name in commands.split()} <= set(SCRIPTS)


# Those that print their help without any package.
WORDS = {"bench.py": ["train"], "publish_student.py": ["run", "export"]}


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_packages_are_one_sentence(script: str, tmp_path: Path) -> None:
    """Without site-packages each script exits with 2 and names the packages."""
    result = subprocess.run(
        [sys.executable, "-S", str(ROOT / "launch" / script), *WORDS.get(script, ["--help"])],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: The package ")
    assert ".venv" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("exists", "active", "remedy"),
    [
        (False, False, "set up and activate .venv with `source launch/setup_venv.sh`"),
        (True, False, "activate the environment with `source .venv/bin/activate`."),
        (True, True, "complete .venv with `source launch/setup_venv.sh`."),
    ],
)
def test_remedy_depends_on_the_environment(
    exists: bool, active: bool, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names what is left to do: set up, activate, or complete."""
    if exists:
        (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(packages, "_ROOT", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / (".venv" if active else "usr")))
    error = ModuleNotFoundError(name="torch.nn")
    sentence = packages.missing_package(error)
    assert sentence.startswith("The package torch is not installed") and remedy in sentence


def test_late_import_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """A package that a command imports while it runs is named in the same way."""

    def main() -> None:
        raise ModuleNotFoundError(name="matplotlib")

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: The package matplotlib is not installed")


def test_own_missing_module_keeps_its_traceback() -> None:
    """A module of the project that is missing is a bug, not a matter of the packages."""
    with pytest.raises(ModuleNotFoundError), packages.packages_required():
        raise ModuleNotFoundError(name="pretrain.nothing")
