"""Detection of NaN or infinite losses, without a device-to-host synchronisation in a step.

The result of a check is copied to pinned memory behind the step's work, and read after the next
step has been launched: the device then has a whole step of work queued while the host reads.
"""

from collections import deque
from typing import NamedTuple

import torch


class _Result(NamedTuple):
    nonfinite: torch.Tensor  # bool, on the host once `copied` has happened
    copied: torch.cuda.Event | None  # None on a CPU

    def read(self) -> bool:
        """Wait for the copy, and return whether the step had a NaN or infinity."""
        if self.copied is not None:
            self.copied.synchronize()
        return bool(self.nonfinite)


class NonfiniteCheck:
    """Checks the steps of one rank; once it has found a NaN or infinity, it keeps reporting it.

    The loop sums the flags of all ranks in a collective that it needs anyway, so that all stop in
    the same step.
    """

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._results: deque[_Result] = deque()
        self._found = False

    def add(self, value: torch.Tensor) -> None:
        """Check a scalar of the current step, such as the loss of a micro-batch.

        Scalars are summed: infinity stays infinity or becomes NaN, and NaN stays NaN.
        """
        value = value.detach().float()
        self._sum = value if self._sum is None else self._sum + value

    def close_step(self) -> None:
        """Queue the check of the step, and the copy of its result, on the device."""
        assert self._sum is not None  # add comes first; a programming error otherwise
        nonfinite = ~torch.isfinite(self._sum)
        copied = None
        if nonfinite.is_cuda:
            # An asynchronous copy goes to pinned memory.
            nonfinite = nonfinite.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._results.append(_Result(nonfinite, copied))
        self._sum = None

    def flag(self) -> int:
        """Return 1 after a NaN or infinity in any step but the last one, which may still run."""
        return self._read(pending=1)

    def synchronised_flag(self) -> int:
        """Return 1 after a NaN or infinity in any step; synchronises with the device."""
        return self._read(pending=0)

    def _read(self, pending: int) -> int:
        while len(self._results) > pending:
            self._found |= self._results.popleft().read()
        return int(self._found)
