"""Learning-rate schedules: pure functions of the rows seen or of the share of a time budget.

Progress is the number of rows seen divided by `train.batch_rows`: the number of steps if all
batches have that size, and the equivalent number of full batches if the batch size grows or changes
with a phase. It follows from the step number alone (see `config/phases.py`), so a resumed run
continues its schedule, and a ramp of the batch size does not distort it.

For a step s of N with a warm-up of W steps and batches of one size, with p = 1 for linear decay:

    s < W              peak * (s + 1) / W
    decay_from warmup  peak * ((N - s) / (N - W))^p   transformers' get_linear_schedule_with_warmup
    decay_from start   peak * ((N - s) / N)^p         google-research/bert's optimization.py;
                                                      NVIDIA's PolyWarmUpScheduler has N - s - 1
"""

import math
from dataclasses import dataclass

from pretrain.config.optim import OptimOptions
from pretrain.config.phases import Phase, phase_at, phases_of
from pretrain.config.train import TrainOptions


@dataclass(frozen=True, kw_only=True)
class WarmupDecay:
    """One warm-up and decay; `warmup_start` to `end` are progress (see the module)."""

    peak: float  # learning rate
    first_step: int
    warmup_start: float
    warmup_end: float
    decay_start: float  # of the schedule warmup_stable_decay; others decay from `warmup_end`
    end: float

    def falling(self, decay_from: str) -> float:
        """Return the progress over which the rate would fall from the peak to its end."""
        return self.end - (self.warmup_start if decay_from == "start" else self.warmup_end)


class LrSchedule:
    """The learning rate of every step of a run.

    The run has one warm-up and decay, and another from each phase with an `lr` of its own: LAMB's
    second phase, on longer rows, warms up again (arXiv 1904.00962).
    """

    def __init__(self, optim: OptimOptions, train: TrainOptions) -> None:
        self._optim = optim
        self._unit = train.batch_rows
        self._phases = phases_of(train)
        starts = [p for p in self._phases if p.first_step == 0 or p.lr is not None]
        ends = [p.first_step for p in starts[1:]] + [train.steps]
        self._parts = [self._warmup_decay(p, end) for p, end in zip(starts, ends, strict=True)]

    def lr(self, step: int, used_share: float = 0.0) -> float:
        """Return the learning rate of a step.

        Args:
            step: optimizer step, counted from 0.
            used_share: share of `train.budget_minutes` used before it; for schedule `budget`.
        """
        part = next(p for p in reversed(self._parts) if p.first_step <= step)
        if self._optim.schedule == "budget":
            return budget(part.peak, used_share, self._optim.warmup_share)
        before, after = self._progress(step), self._progress(step + 1)
        if before < part.warmup_end:
            span = part.warmup_end - part.warmup_start
            return linear(part.peak, 0.0, after - part.warmup_start, span)
        return self._decayed(part, part.end - before)

    def _decayed(self, part: WarmupDecay, left: float) -> float:
        peak, floor = part.peak, part.peak * self._optim.end_share
        span = part.falling(self._optim.decay_from)
        if self._optim.schedule == "polynomial":
            return polynomial(peak, floor, left, span, self._optim.power)
        if self._optim.schedule == "cosine":
            return cosine(peak, floor, left, span)
        if self._optim.schedule == "warmup_stable_decay":
            return warmup_stable_decay(peak, floor, left, part.end - part.decay_start)
        return linear(peak, floor, left, span)

    def _warmup_decay(self, phase: Phase, end: int) -> WarmupDecay:
        optim, first = self._optim, phase.first_step
        warmup = optim.warmup_steps if phase.lr is None else phase.warmup_steps
        decay = optim.decay_steps or max((end - first) // 10, 1)
        return WarmupDecay(
            peak=optim.lr if phase.lr is None else phase.lr,
            first_step=first,
            warmup_start=self._progress(first),
            warmup_end=self._progress(first + warmup),
            decay_start=self._progress(max(end - decay, first + warmup)),
            end=self._progress(end),
        )

    def _progress(self, step: int) -> float:
        """Return the rows of all steps before this one, in units of full batches."""
        last = phase_at(self._phases, step)
        earlier = sum(
            p.steps * p.batch_rows for p in self._phases if p.first_step < last.first_step
        )
        return (earlier + (step - last.first_step) * last.batch_rows) / self._unit


def linear(peak: float, floor: float, left: float, span: float) -> float:
    """Return linear decay from `peak` to `floor`, with `left` of `span` remaining.

    Only the step after the last one would have `floor` (arXiv 1810.04805, appendix A.2).
    """
    return floor + (peak - floor) * left / span


def polynomial(peak: float, floor: float, left: float, span: float, power: float) -> float:
    """Return polynomial decay; NVIDIA trains with LAMB and a power of 0.5."""
    return floor + (peak - floor) * (left / span) ** power


def cosine(peak: float, floor: float, left: float, span: float) -> float:
    """Return cosine decay (arXiv 1608.03983, without restarts)."""
    return floor + (peak - floor) * (1 - math.cos(math.pi * left / span)) / 2


def warmup_stable_decay(peak: float, floor: float, left: float, decay: float) -> float:
    """Return `peak` until `decay` remains, then linear decay (arXiv 2404.06395)."""
    return linear(peak, floor, min(left, decay), decay)


def budget(peak: float, used_share: float, warmup_share: float) -> float:
    """Return linear warm-up and decay over the share of a time budget (arXiv 2104.07705).

    The learning rate is 0 at the end of the budget, whatever number of steps that took.
    """
    if used_share < warmup_share:
        return peak * used_share / warmup_share
    return peak * max(1 - used_share, 0.0) / (1 - warmup_share)
