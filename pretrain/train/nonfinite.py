"""Losses that are not finite are noticed soon, and no step waits for the device to find out.

Whether a step's loss is finite is known only when the device has computed it, long after the
processor has given the step out. So the answer is copied behind the step's work, into pinned
memory, and asked for when the step after it has been given out as well: the device then has a
whole step to do while the processor looks.
"""

from collections import deque
from typing import NamedTuple

import torch


class _Answer(NamedTuple):
    bad: torch.Tensor  # bool, on the host once `copied` has happened
    copied: torch.cuda.Event | None  # None on a CPU, where it is there at once

    def read(self) -> bool:
        """Wait for the copy, and return whether the step was bad."""
        if self.copied is not None:
            self.copied.synchronize()
        return bool(self.bad)


class NonfiniteCheck:
    """Remembers what the device will have said of the last steps; each rank sees its own.

    The loop adds up the flags of all ranks in a collective that it needs anyway, so that all stop
    in the same step.
    """

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._answers: deque[_Answer] = deque()
        self._found = False

    def add(self, value: torch.Tensor) -> None:
        """Watch a scalar of the current step, such as the loss of a micro-batch.

        Adding up keeps what is wrong: inf stays inf or becomes NaN, and NaN stays NaN.
        """
        value = value.detach().float()
        self._sum = value if self._sum is None else self._sum + value

    def close_step(self) -> None:
        """Have the answer copied once the device gets there."""
        assert self._sum is not None  # add comes first; a programming error otherwise
        bad = ~torch.isfinite(self._sum)
        copied = None
        if bad.is_cuda:
            # A copy that is not waited for goes to pinned memory.
            bad = bad.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._answers.append(_Answer(bad, copied))
        self._sum = None

    def flag(self) -> int:
        """Return 1 when a step was bad, of all but the last one, which the device is still at."""
        return self._read(keep=1)

    def settle(self) -> int:
        """Return 1 when a step was bad, the last one included: this waits for the device."""
        return self._read(keep=0)

    def _read(self, keep: int) -> int:
        while len(self._answers) > keep:
            self._found |= self._answers.popleft().read()
        return int(self._found)
