"""Preemption: a signal, a stop file or the wall clock end a run between two steps.

A signal handler sets a flag and does nothing else. The flags of all ranks are summed once a step,
in the same collective as the counts, so that all ranks stop at the same step.
"""

import signal
import time
from pathlib import Path
from types import FrameType

STOP_FILE = "STOP"
# USR1/USR2: what `sbatch --signal` sends before a time limit; TERM: preemption; INT: Ctrl-C.
_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
BY_STOP_FILE = f"the file {STOP_FILE}"
REASONS = ("a signal", BY_STOP_FILE, "train.max_minutes")


class PreemptionMonitor:
    """Collects the reasons for which this rank should stop."""

    def __init__(self, run_path: Path, max_minutes: float | None) -> None:
        self._signalled = False
        self._stop_file = run_path / STOP_FILE
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        for number in _SIGNALS:
            signal.signal(number, self._set_flag)

    def flags(self) -> list[int]:
        """Return one 0 or 1 for each of `REASONS`."""
        late = self._deadline is not None and time.monotonic() > self._deadline
        return [int(self._signalled), int(self._stop_file.exists()), int(late)]

    def ignore_signals(self) -> None:
        """Ignore further signals: a second one must not kill a rank while it exits."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _set_flag(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True


def reason_of(flags: list[int]) -> str | None:
    """Return why the ranks stop, from their summed flags, or None to continue."""
    return next((reason for flag, reason in zip(flags, REASONS, strict=True) if flag), None)
