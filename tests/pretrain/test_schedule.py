"""The learning rate: up to the peak in a line, down to nothing in another."""

import pytest

from pretrain.schedule import linear_schedule


def rates(*, peak: float, warmup_steps: int, steps: int) -> list[float]:
    return [
        linear_schedule(step, peak=peak, warmup_steps=warmup_steps, steps=steps)
        for step in range(steps)
    ]


def test_the_rate_of_every_step_of_a_short_run() -> None:
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert rates(peak=1.0, warmup_steps=4, steps=9) == pytest.approx(expected)


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert rates(peak=2.0, warmup_steps=0, steps=4) == pytest.approx([2.0, 1.5, 1.0, 0.5])


@pytest.mark.parametrize(("warmup_steps", "steps"), [(0, 1), (1, 2), (99, 100), (100, 4000)])
def test_the_peak_is_reached_and_no_step_is_wasted_at_zero(warmup_steps: int, steps: int) -> None:
    found = rates(peak=1e-3, warmup_steps=warmup_steps, steps=steps)
    assert max(found) == pytest.approx(1e-3) and min(found) > 0
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
