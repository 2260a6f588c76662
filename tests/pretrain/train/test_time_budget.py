"""A wall-clock budget: time counts over restarts, by rank 0's clock."""

import time

import pytest

from pretrain.train.time_budget import TimeBudget


def test_resumed_run_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time used before a restart counts, whatever the clock of the next machine shows."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first = TimeBudget(minutes=2, used_ms=0, is_main=True)
    now += 30
    assert first.main_used_ms() == 30_000
    assert first.share(first.main_used_ms()) == 0.25
    # Days later, on another machine whose clock counts from another moment.
    now = 50.0
    second = TimeBudget(minutes=2, used_ms=30_000, is_main=True)
    assert second.main_used_ms() == 30_000
    now += 90
    assert second.share(second.main_used_ms()) == 1.0


def test_only_rank_0_reports_time() -> None:
    """Other ranks report 0, so that the sum over ranks is rank 0's time."""
    assert TimeBudget(minutes=2, used_ms=30_000, is_main=False).main_used_ms() == 0


def test_no_limit_is_never_used_up() -> None:
    """Without a limit the share used stays 0."""
    budget = TimeBudget(minutes=None, used_ms=10**12, is_main=True)
    assert budget.share(budget.main_used_ms()) == 0
