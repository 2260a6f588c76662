"""`--help` of the commands that read a recipe: one screen, or the part that is named."""

import sys
from types import ModuleType

import pytest

from launch import distill_student, prepare_data, study, train_teacher, write_teacher_cache
from launch.command_line.errors import run_command

COMMANDS = [distill_student, prepare_data, study, train_teacher, write_teacher_cache]


def output_of(
    command: ModuleType,
    *words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Return what a command prints on stdout before it exits with code 0."""
    monkeypatch.setattr(sys, "argv", ["command.py", *words])
    with pytest.raises(SystemExit) as ended:
        run_command(command.main)
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_plain_help_is_one_screen(
    command: ModuleType,
    flag: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Plain help has the usage, the groups and the usual keys in 60 lines of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    lines = output_of(command, flag, monkeypatch=monkeypatch, capsys=capsys).splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 100
    assert lines[0].startswith("usage: ") and "--help all" in lines[-1]
    assert not any(line.endswith("...") for line in lines)


def test_help_takes_a_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--help optim` and `--help=optim.lr` need no recipe, and show that part alone."""
    options = {"monkeypatch": monkeypatch, "capsys": capsys}
    assert output_of(train_teacher, "--help", "optim", **options).startswith("optim: ")
    assert output_of(train_teacher, "--help=optim.lr", **options).startswith("optim.lr = ")
    assert "soft_targets" in output_of(distill_student, "--help", "objectives", **options)


def test_help_is_printed_by_rank_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a launcher only rank 0 prints the help."""
    monkeypatch.setenv("RANK", "1")
    assert output_of(train_teacher, "--help", monkeypatch=monkeypatch, capsys=capsys) == ""
