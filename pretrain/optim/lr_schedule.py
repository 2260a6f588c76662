"""Learning-rate schedules: pure functions of the rows seen, and of the time used where that counts.

How far a run has come is measured in rows seen over `train.batch_rows`: in steps, where all batches
are of that size, and in what those steps would have read, where the batch grows or changes with a
phase. Rows follow from the step's number alone (see `phases.py`), so a resumed run is on the curve
it left, and a ramp of the batch does not bend it.
"""

import math
from dataclasses import dataclass

from pretrain.config.optim import OptimOptions
from pretrain.config.phases import Phase, phase_at, phases_of
from pretrain.config.train import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One rise and fall of the learning rate; places are rows seen over `train.batch_rows`."""

    peak: float
    first_step: int
    start: float  # the place where the rise begins
    top: float  # where it has reached the peak
    turn: float  # where a stable rate begins to fall
    end: float  # where the fall would arrive


class LrSchedule:
    """The learning rate of every step of a run.

    There is one curve over the whole run, and another from each phase on that names its own `lr`:
    LAMB's second phase, on longer rows, warms up again (arXiv 1904.00962).
    """

    def __init__(self, optim: OptimOptions, train: TrainOptions) -> None:
        self._optim = optim
        self._unit = train.batch_rows
        self._phases = phases_of(train)
        starts = [p for p in self._phases if p.first_step == 0 or p.lr is not None]
        ends = [p.first_step for p in starts[1:]] + [train.steps]
        self._curves = [self._curve(p, end) for p, end in zip(starts, ends, strict=True)]

    def rate(self, step: int, used_share: float = 0.0) -> float:
        """Return the learning rate of a step, counted from 0.

        Args:
            step: optimizer steps done before it.
            used_share: share of `train.budget_minutes` used before it; for schedule `budget`.
        """
        curve = next(c for c in reversed(self._curves) if c.first_step <= step)
        if self._optim.schedule == "budget":
            return budget(curve.peak, used_share, self._optim.warmup_share)
        before, after = self._place(step), self._place(step + 1)
        if before < curve.top:
            return linear(curve.peak, 0.0, after - curve.start, curve.top - curve.start)
        return self._fall(curve, curve.end - before)

    def _fall(self, curve: Curve, left: float) -> float:
        peak, floor, span = curve.peak, curve.peak * self._optim.end_share, curve.end - curve.top
        if self._optim.schedule == "polynomial":
            return polynomial(peak, floor, left, span, self._optim.power)
        if self._optim.schedule == "cosine":
            return cosine(peak, floor, left, span)
        if self._optim.schedule == "warmup_stable_decay":
            return warmup_stable_decay(peak, floor, left, curve.end - curve.turn)
        return linear(peak, floor, left, span)

    def _curve(self, phase: Phase, end: int) -> Curve:
        optim, first = self._optim, phase.first_step
        own = phase.lr is not None
        warmup = phase.warmup_steps if own else optim.warmup_steps
        decay = optim.decay_steps or max((end - first) // 10, 1)
        return Curve(
            peak=optim.lr if phase.lr is None else phase.lr,
            first_step=first,
            start=self._place(first),
            top=self._place(first + warmup),
            turn=self._place(max(end - decay, first + warmup)),
            end=self._place(end),
        )

    def _place(self, step: int) -> float:
        """Return the rows of all steps before this one, in batches of the full size."""
        last = phase_at(self._phases, step)
        earlier = sum(
            p.steps * p.batch_rows for p in self._phases if p.first_step < last.first_step
        )
        return (earlier + (step - last.first_step) * last.batch_rows) / self._unit


def linear(peak: float, floor: float, left: float, span: float) -> float:
    """Return the rate on a line that reaches `floor` when nothing of `span` is left.

    The step after the last would be there, so none is wasted (arXiv 1810.04805, appendix A.2).
    """
    return floor + (peak - floor) * left / span


def polynomial(peak: float, floor: float, left: float, span: float, power: float) -> float:
    """Return the rate that falls as a power of what is left; 0.5 is NVIDIA's for LAMB."""
    return floor + (peak - floor) * (left / span) ** power


def cosine(peak: float, floor: float, left: float, span: float) -> float:
    """Return the rate on half a cosine (arXiv 1608.03983, without restarts)."""
    return floor + (peak - floor) * (1 - math.cos(math.pi * left / span)) / 2


def warmup_stable_decay(peak: float, floor: float, left: float, decay: float) -> float:
    """Return the peak until `decay` is left, then a line (arXiv 2404.06395)."""
    return linear(peak, floor, min(left, decay), decay)


def budget(peak: float, used_share: float, warmup_share: float) -> float:
    """Return the rate that rises and falls on lines with the time used.

    It is 0 when the budget is used up, however many steps that took (arXiv 2104.07705).
    """
    if used_share < warmup_share:
        return peak * used_share / warmup_share
    return peak * max(1 - used_share, 0.0) / (1 - warmup_share)
