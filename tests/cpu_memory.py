"""Memory that a function allocates on the CPU, as torch's allocator reports it."""

import gc
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile


class Allocated(NamedTuple):
    """Bytes beyond those that were allocated before."""

    peak: int
    held: int  # by what the function returned


def measure_memory(function: Callable[[], object]) -> Allocated:
    """Return what a call allocates, with its result alive at the end."""
    gc.collect()  # what others have left would be freed meanwhile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        result = function()
    assert profiled.profiler is not None
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    sizes = list(accumulate(change for _, change in changes))
    del result
    return Allocated(max(sizes), sizes[-1])
