"""The window between two log lines: means of the terms, speed, data wait, padding, memory."""

import resource
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pretrain.distributed import Cluster
from pretrain.losses.term import Term, normalised_values


@dataclass
class _Segment:
    """Consecutive steps whose terms have the same tags and weights."""

    terms: tuple[tuple[str, float], ...]
    sums: torch.Tensor
    steps: int = 0


class MetricsWindow:
    """Accumulates the figures of the steps since the last log line.

    Terms stay on the device until the line is due, so that no step synchronises for them.

    Args:
        cluster: the ranks of the run.
        peak_flops: peak operations a second of one device, None where it is not listed.
    """

    def __init__(self, cluster: Cluster, peak_flops: float | None = None) -> None:
        self._cluster = cluster
        self._peak_flops = peak_flops
        self._segments: list[_Segment] = []
        self._reset()

    def add_terms(self, terms: Sequence[Term], counts: Mapping[str, int]) -> None:
        """Add a micro-batch's share of the step's means."""
        values = normalised_values(terms, counts)
        key = tuple((term.tag, term.weight) for term in terms)
        if self._segments and self._segments[-1].terms == key:
            self._segments[-1].sums += values
        else:
            # A new stage has other terms, and a weight may change with every step.
            self._segments.append(_Segment(key, values))

    def add_step(self, *, tokens: int, padded_tokens: int, flops: int, data_wait_s: float) -> None:
        """Count one optimizer step.

        Args:
            tokens: real tokens, over all ranks.
            padded_tokens: those of its rows, padding included, over all ranks.
            flops: operations of the step, over all ranks; see `flops.py`.
            data_wait_s: seconds that this rank waited for its rows.
        """
        self._segments[-1].steps += 1
        self._tokens += tokens
        self._padded_tokens += padded_tokens
        self._flops += flops
        self._data_wait_s += data_wait_s

    @property
    def steps(self) -> int:
        """Optimizer steps since the last line."""
        return sum(segment.steps for segment in self._segments)

    def pause(self, seconds: float) -> None:
        """Exclude time that was spent on validation or checkpoints."""
        self._started += seconds

    def close(self) -> dict[str, float]:
        """Return the figures of the window, and start the next one (all ranks)."""
        sums = self._cluster.sum_tensor(torch.cat([s.sums for s in self._segments])).tolist()
        total, values = _means(self._segments, sums)
        steps = self.steps
        # The sums above synchronised: this is the time of the computation, not of its launch.
        elapsed = time.perf_counter() - self._started
        figures = {
            "loss/total": total,
            **values,
            "speed/tokens_per_s": self._tokens / elapsed,
            "speed/step_ms": 1000 * elapsed / steps,
            "speed/data_wait_share": self._data_wait_s / elapsed,
            "speed/padding_share": 1 - self._tokens / self._padded_tokens,
            **self._utilisation(elapsed),
            "memory/peak_gib": peak_memory_gib(self._cluster.device),
        }
        self._reset()
        return figures

    def _utilisation(self, elapsed: float) -> dict[str, float]:
        """Return the operations a second of one device, and their share of its peak (MFU)."""
        per_device = self._flops / elapsed / self._cluster.world_size
        figures = {"speed/tflops": per_device / 1e12}
        if self._peak_flops is not None:
            figures["speed/mfu"] = per_device / self._peak_flops
        return figures

    def _reset(self) -> None:
        self._segments = []
        self._tokens = self._padded_tokens = self._flops = 0
        self._data_wait_s = 0.0
        self._started = time.perf_counter()


def _means(segments: Sequence[_Segment], sums: Sequence[float]) -> tuple[float, dict[str, float]]:
    """Return the mean loss, and the mean of each term over the steps that had it."""
    rest, loss = iter(sums), 0.0
    totals: dict[str, float] = defaultdict(float)
    steps: dict[str, int] = defaultdict(int)
    for segment in segments:
        for tag, weight in segment.terms:
            value = next(rest)
            totals[tag] += value
            steps[tag] += segment.steps
            loss += weight * value
    whole = sum(segment.steps for segment in segments)
    return loss / whole, {tag: totals[tag] / steps[tag] for tag in totals}


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory this rank has used: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
