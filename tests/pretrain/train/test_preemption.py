"""Stops: each way to ask is heard, nothing happens inside the handler, all ranks agree."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain.train import preemption as interrupt
from pretrain.train.preemption import REASONS, STOP_FILE, PreemptionMonitor, reason_of

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Let signals pass unheard at first, and give this process its own handlers back."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_run_that_nobody_stops_goes_on(tmp_path: Path) -> None:
    watch = PreemptionMonitor(tmp_path, max_minutes=None)
    assert watch.flags() == [0, 0, 0]
    assert reason_of(watch.flags()) is None


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_sets_a_flag_and_interrupts_nothing(tmp_path: Path, number: int) -> None:
    watch = PreemptionMonitor(tmp_path, max_minutes=None)
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert watch.flags() == [1, 0, 0], "this line is reached, so nothing was interrupted"
    assert reason_of(watch.flags()) == "a signal"


def test_a_stop_file_is_heard_while_it_exists(tmp_path: Path) -> None:
    watch = PreemptionMonitor(tmp_path, max_minutes=None)
    (tmp_path / STOP_FILE).touch()
    assert reason_of(watch.flags()) == "the file STOP"
    (tmp_path / STOP_FILE).unlink()
    assert reason_of(watch.flags()) is None


def test_the_wall_clock_stops_a_run_after_its_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now)
    watch = PreemptionMonitor(tmp_path, max_minutes=1.5)
    now += 89
    assert watch.flags() == [0, 0, 0]
    now += 2
    assert watch.flags() == [0, 0, 1]
    assert reason_of(watch.flags()) == "train.max_minutes"


def test_one_rank_is_enough_to_stop_all() -> None:
    ranks = [[0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert reason_of([sum(flags) for flags in zip(*ranks, strict=True)]) == REASONS[0]
    assert reason_of([0, 4, 4]) == REASONS[1]
    assert reason_of([0, 0, 3]) == REASONS[2]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_second_warning_does_not_kill_a_rank_on_its_way_out(number: int) -> None:
    # The interpreter puts default actions back while it ends, but leaves an ignored signal alone,
    # as `exec` does: so another program in the same process tells.
    program = [
        "import os, pathlib; from pretrain.train.preemption import PreemptionMonitor",
        "PreemptionMonitor(pathlib.Path('.'), None).ignore_signals()",
        f"os.execvp('bash', ['bash', '-c', 'kill -{int(number)} $$; exit 0'])",
    ]
    assert subprocess.run([sys.executable, "-c", "\n".join(program)]).returncode == 0
