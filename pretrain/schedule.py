"""Learning-rate schedules: pure functions of the step."""


def linear_schedule(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0.

    It rises from peak/warmup to the peak, then falls on a line that would reach 0 at the step
    after the last (arXiv 1810.04805, appendix A.2).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * (steps - step) / (steps - warmup_steps)
