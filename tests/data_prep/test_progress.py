"""Progress: dated lines in a log, a bar on a terminal."""

import re

import pytest

from data_prep import progress as progress_module
from data_prep.progress import Progress, log


class Terminal:
    """A stderr that says it is a terminal, and keeps what is written."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """There is nothing to flush."""


def test_progress_logs_dated_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log file gets plain dated lines with figures."""
    monkeypatch.setattr(progress_module, "_LOG_EVERY_S", 0.0)
    with Progress(1000) as progress:
        progress.add(250, 5, 5000)
    line = capsys.readouterr().err
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) and "\r" not in line
    assert " 25%  5 documents " in line and "tokens/s" in line and "s left" in line
    assert progress.summary().startswith("5 documents, 5,000 tokens in ")


def test_progress_lines_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines are logged at intervals, not for every call."""
    with Progress(1000) as progress:
        for _ in range(100):
            progress.add(10, 1, 10)
    assert capsys.readouterr().err == ""


def test_progress_bar_on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a bar."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress(1000) as progress:
        progress.add(1000, 5, 5000)
    assert "prepare" in terminal.text and "100%" in terminal.text


def test_log_writes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A log line goes to stderr."""
    log("hello")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.endswith("  hello\n")
