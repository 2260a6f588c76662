"""Learning-rate schedules: linear warm-up, then the decay that the recipe names."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from pretrain.config.optim import OptimOptions
from pretrain.config.train import TrainOptions
from pretrain.optim.lr_schedule import LrSchedule


def schedule(steps: int, train: dict[str, Any] | None = None, **optim: Any) -> LrSchedule:
    options: dict[str, Any] = {"steps": steps, "batch_rows": 8, "micro_rows": 1, **(train or {})}
    return LrSchedule(OptimOptions(**optim), TrainOptions(**options))


def rates(steps: int, **options: Any) -> list[float]:
    found = schedule(steps, **options)
    return [found.lr(step) for step in range(steps)]


def test_linear_lr_of_short_run() -> None:
    """The learning rate of every step of a short linear run, with warm-up."""
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert rates(9, lr=1.0, warmup_steps=4) == pytest.approx(expected)


def test_no_warmup_starts_at_peak() -> None:
    """Without warm-up the first step has the peak learning rate."""
    assert rates(4, lr=2.0) == pytest.approx([2.0, 1.5, 1.0, 0.5])


@pytest.mark.parametrize(("warmup_steps", "steps"), [(0, 1), (1, 2), (99, 100), (100, 4000)])
def test_linear_lr_equals_formula_exactly(warmup_steps: int, steps: int) -> None:
    """The linear schedule equals the formula in steps, bit for bit."""
    found = rates(steps, lr=1e-3, warmup_steps=warmup_steps)
    risen = [1e-3 * (step + 1) / warmup_steps for step in range(warmup_steps)]
    fallen = [1e-3 * (steps - step) / (steps - warmup_steps) for step in range(warmup_steps, steps)]
    assert found == risen + fallen


@pytest.mark.parametrize("kind", ["linear", "polynomial", "cosine", "warmup_stable_decay"])
@pytest.mark.parametrize(("warmup_steps", "steps"), [(0, 1), (1, 2), (99, 100), (100, 1000)])
def test_lr_reaches_peak_and_stays_positive(kind: str, warmup_steps: int, steps: int) -> None:
    """Every schedule reaches its peak, is monotonic on both sides and never zero."""
    found = rates(steps, lr=1e-3, warmup_steps=warmup_steps, schedule=kind)
    assert max(found) == pytest.approx(1e-3) and min(found) > 0
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


@pytest.mark.parametrize(
    ("options", "at"),
    [
        ({"schedule": "polynomial", "power": 0.5}, lambda left: math.sqrt(left)),
        ({"schedule": "polynomial", "power": 2}, lambda left: left * left),
        ({"schedule": "cosine"}, lambda left: 0.5 + 0.5 * math.cos(math.pi * (1 - left))),
        ({"schedule": "cosine", "end_share": 0.1},
         lambda left: 0.1 + 0.45 * (1 + math.cos(math.pi * (1 - left)))),
        ({"schedule": "linear", "end_share": 0.25}, lambda left: 0.25 + 0.75 * left),
        ({"schedule": "warmup_stable_decay", "decay_steps": 40},
         lambda left: min(1.0, left * 90 / 40)),
        ({"schedule": "warmup_stable_decay"}, lambda left: min(1.0, left * 90 / 10)),
    ],
)  # fmt: skip
def test_decay_matches_formula(options: dict[str, Any], at: Callable[[float], float]) -> None:
    """Each decay equals its formula after the warm-up."""
    found = rates(100, lr=2.0, warmup_steps=10, **options)
    # 1 after the warm-up, 0 at the step that would follow the last one.
    expected = [2 * at((100 - step) / 90) for step in range(10, 100)]
    assert found[10:] == pytest.approx(expected)
    assert found[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])


def test_decay_from_start_matches_published_schedules() -> None:
    """Google's and NVIDIA's schedules count the fall from the first step, over the warm-up."""
    # google-research/bert, optimization.py: tf.train.polynomial_decay of the step counted from 0.
    google = [1e-4 * (1 - step / 1000) for step in range(10, 1000)]
    found = rates(1000, lr=1e-4, warmup_steps=10, decay_from="start")
    assert found[10:] == pytest.approx(google)
    assert found[:10] == pytest.approx([1e-5 * (step + 1) for step in range(10)])
    # NVIDIA's schedulers.py, PolyWarmUpScheduler: progress counts the step that is being taken.
    keys = {"lr": 6e-3, "warmup_steps": 2000, "schedule": "polynomial", "decay_from": "start"}
    found = rates(7038, **keys)
    nvidia = [6e-3 * (1 - (step + 1) / 7038) ** 0.5 for step in range(2000, 7038)]
    assert found[2000:-100] == pytest.approx(nvidia[:-100], rel=0.006), "a step apart"
    from_warmup = rates(7038, **{**keys, "decay_from": "warmup"})
    assert from_warmup[5000] / found[5000] == pytest.approx(1.182, abs=5e-4)


def test_decay_from_start_restarts_with_a_phase() -> None:
    """A phase with its own `lr` counts its fall from its own first step."""
    phases = {"phases": [{"steps": 10}, {"steps": 8, "lr": 0.4, "warmup_steps": 4}]}
    found = rates(18, train=phases, lr=1.0, warmup_steps=5, decay_from="start")
    assert found[5:10] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert found[10:] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.2, 0.15, 0.1, 0.05])


def test_lr_follows_rows_during_batch_ramp() -> None:
    """While the batch grows, the learning rate is a function of the rows seen."""
    ramp = {"ramp": {"from_rows": 2, "steps": 30, "stages": 3}}
    ramped, plain = schedule(50, ramp, lr=1.0), schedule(50, lr=1.0)
    # 10 steps each of 2, 4 and 6 rows, then 20 of 8, are 280 rows or 35 full batches.
    for step, rows in ((0, 0), (10, 20), (20, 60), (30, 120), (40, 200), (49, 272)):
        assert ramped.lr(step) == pytest.approx(1 - rows / 280), step
    assert plain.lr(25) == 0.5


def test_warmup_steps_during_batch_ramp() -> None:
    """The warm-up takes `warmup_steps` steps while the batch grows, too."""
    ramp = {"ramp": {"from_rows": 2, "steps": 30, "stages": 3}}
    found = schedule(50, ramp, lr=1.0, warmup_steps=20)
    assert found.lr(19) == pytest.approx(1.0)
    # 10 steps of 2 rows are a third of the 60 rows of the warm-up.
    assert found.lr(9) == pytest.approx(1 / 3)


def test_phase_with_lr_restarts_schedule() -> None:
    """A phase with its own `lr` starts another warm-up and decay."""
    phases = {"phases": [{"steps": 10}, {"steps": 8, "lr": 0.4, "warmup_steps": 4}, {"steps": 2}]}
    found = rates(20, train=phases, lr=1.0, warmup_steps=5)
    assert found[:10] == pytest.approx(rates(10, lr=1.0, warmup_steps=5))
    assert found[10:14] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    # The last phase has no `lr`: it continues the decay of the phase before.
    assert found[14:] == pytest.approx([0.4 * left / 6 for left in (6, 5, 4, 3, 2, 1)])


def test_budget_schedule_follows_time_used() -> None:
    """The schedule `budget` is a function of the share of time used, not of the step."""
    found = schedule(10_000, lr=1.0, schedule="budget", warmup_share=0.2)
    shares = [0.05, 0.1, 0.2, 0.6, 0.999, 1.0, 1.7]
    assert [found.lr(7, share) for share in shares] == pytest.approx(
        [0.25, 0.5, 1.0, 0.5, 0.001 / 0.8, 0.0, 0.0]
    )
    assert found.lr(7, 0.6) == found.lr(9_999, 0.6), "steps do not matter"
    assert schedule(10, lr=1.0, schedule="budget").lr(0, 0.0) == 1.0
