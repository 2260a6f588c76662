"""One sentence for a person, from one rank."""

import pytest

from data_prep.errors import UserError
from launch import cli


def refuse() -> None:
    raise UserError("the corpus is empty: add text.")


@pytest.mark.parametrize(("rank", "waits"), [("0", False), ("1", True)])
def test_rank_0_speaks_first(
    rank: str, waits: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(cli.time, "sleep", slept.append)
    with pytest.raises(SystemExit) as ended:
        cli.run_command(refuse)
    assert ended.value.code == 2
    assert bool(slept) == waits
    assert capsys.readouterr().err == "error: the corpus is empty: add text.\n"


def test_a_bug_keeps_its_traceback() -> None:
    def crash() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        cli.run_command(crash)
