"""A wall-clock budget: so many minutes of training, over all restarts of a run."""

import time


class TimeBudget:
    """The clock of a run: rank 0's time, which the collective of each step gives to all ranks.

    It runs while steps are computed, validated and saved; starting up and waiting in a queue do
    not count. The time used is part of a checkpoint, so a resumed run has only the rest.

    Args:
        minutes: how long the run may train; None sets no limit.
        used_ms: time used before this start.
        is_main: whether this is rank 0.
    """

    def __init__(self, minutes: float | None, used_ms: int, is_main: bool) -> None:
        self._limit_ms = None if minutes is None else 60_000 * minutes
        self._is_main = is_main
        self._began = time.monotonic() - used_ms / 1000

    def main_used_ms(self) -> int:
        """Return the milliseconds used on rank 0, and 0 elsewhere: the sum over ranks is right."""
        return int(1000 * (time.monotonic() - self._began)) if self._is_main else 0

    def share(self, used_ms: int) -> float:
        """Return which share of the budget is used; 0 without a limit, 1 and more at its end."""
        return 0.0 if self._limit_ms is None else used_ms / self._limit_ms
