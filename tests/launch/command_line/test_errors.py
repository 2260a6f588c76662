"""Entry points: a refusal is one sentence from one rank, with code 2."""

import subprocess
import sys

import pytest

from data_prep.errors import UserError
from launch.command_line import errors


def refuse() -> None:
    raise UserError("the corpus is empty: add text.")


@pytest.mark.parametrize(("rank", "waits"), [("0", False), ("1", True)])
def test_rank_0_prints_first(
    rank: str, waits: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 0 prints a refusal at once, other ranks after a pause, all with code 2."""
    slept: list[float] = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(errors.time, "sleep", slept.append)
    with pytest.raises(SystemExit) as ended:
        errors.run_command(refuse)
    assert ended.value.code == 2
    assert bool(slept) == waits
    assert capsys.readouterr().err == "error: the corpus is empty: add text.\n"


def test_bug_keeps_traceback() -> None:
    """An exception that is no UserError passes through."""

    def crash() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        errors.run_command(crash)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("print('done')", 0, "done"),
        ("raise UserError('no corpus.')", 2, "error: no corpus."),
        ("raise SystemExit(0)", 0, ""),
    ],
)
def test_rank_exits_at_once(body: str, code: int, said: str) -> None:
    """A rank exits without teardown, its output flushed, with the code of its outcome."""
    # An ordinary exit would run this; ending at once must not lose what was printed before.
    program = (
        "import atexit\nfrom data_prep.errors import UserError\n"
        "from launch.command_line.errors import run_rank\n"
        f"atexit.register(print, 'torn down')\ndef main():\n    {body}\nrun_rank(main)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == code
    assert (ended.stdout + ended.stderr).strip() == said
