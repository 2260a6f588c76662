"""Preemption: each way to stop sets a flag, and one flag stops all ranks."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain.train import preemption
from pretrain.train.preemption import REASONS, STOP_FILE, PreemptionMonitor, reason_of

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Ignore signals at first, and restore the handlers of this process."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_no_flags_without_a_stop(tmp_path: Path) -> None:
    """Without a signal, a stop file or a deadline, no flag is set."""
    monitor = PreemptionMonitor(tmp_path, max_minutes=None)
    assert monitor.flags() == [0, 0, 0]
    assert reason_of(monitor.flags()) is None


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_signal_sets_a_flag(tmp_path: Path, number: int) -> None:
    """A signal sets a flag and interrupts nothing."""
    monitor = PreemptionMonitor(tmp_path, max_minutes=None)
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert monitor.flags() == [1, 0, 0], "this line is reached, so nothing was interrupted"
    assert reason_of(monitor.flags()) == "a signal"


def test_stop_file_sets_a_flag(tmp_path: Path) -> None:
    """A stop file sets its flag while it exists."""
    monitor = PreemptionMonitor(tmp_path, max_minutes=None)
    (tmp_path / STOP_FILE).touch()
    assert reason_of(monitor.flags()) == "the file STOP"
    (tmp_path / STOP_FILE).unlink()
    assert reason_of(monitor.flags()) is None


def test_deadline_sets_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag of `train.max_minutes` is set once the time has passed."""
    now = 1000.0
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now)
    monitor = PreemptionMonitor(tmp_path, max_minutes=1.5)
    now += 89
    assert monitor.flags() == [0, 0, 0]
    now += 2
    assert monitor.flags() == [0, 0, 1]
    assert reason_of(monitor.flags()) == "train.max_minutes"


def test_one_rank_stops_all() -> None:
    """A flag on one rank is enough to stop all, and the first reason is named."""
    ranks = [[0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert reason_of([sum(flags) for flags in zip(*ranks, strict=True)]) == REASONS[0]
    assert reason_of([0, 4, 4]) == REASONS[1]
    assert reason_of([0, 0, 3]) == REASONS[2]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_later_signals_are_ignored(number: int) -> None:
    """A second signal does not kill a rank while it exits."""
    # Python restores default actions at its end, but leaves ignored signals, as `exec` does: hence
    # the check in another program of the same process.
    program = [
        "import os, pathlib; from pretrain.train.preemption import PreemptionMonitor",
        "PreemptionMonitor(pathlib.Path('.'), None).ignore_signals()",
        f"os.execvp('bash', ['bash', '-c', 'kill -{int(number)} $$; exit 0'])",
    ]
    assert subprocess.run([sys.executable, "-c", "\n".join(program)]).returncode == 0
