"""The loader: prefetches the micro-batches of the coming steps, optionally in worker processes.

The rows of a step follow from its number alone, so workers have no state and the batches are the
same for any number of workers.
"""

import contextlib
import ctypes
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from multiprocessing import get_context, resource_tracker
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_prep.corpus.shards import Int64Array
from data_prep.errors import UserError
from pretrain.config.phases import Phase, phase_at
from pretrain.config.run import LoaderOptions, MaskOptions
from pretrain.data.batch import Batch, BatchStack
from pretrain.data.batch_source import BatchSource, SourceSpec, rows_of_rank
from pretrain.masking.base import rate_at

# Adds tensors to a stack, given the numbers of its rows [K, micro_rows].
StackTransform = Callable[[BatchStack, Int64Array], BatchStack]

_WORKERS_ON_GPU = 2
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in Linux's sys/prctl.h


class StepDataset(Dataset[BatchStack | UserError]):
    """A rank's micro-batches of every step, by the number of the step.

    Pickling leaves the open files out; a worker opens them again on first access.

    Args:
        sources: by the length of their rows.
        phases: of the run.
        mask: its schedule of rates.
        rank, world_size: which micro-batches.

    Attributes:
        transforms: applied to each stack, by the length of its rows; none unless set.
    """

    def __init__(
        self,
        sources: Mapping[int, BatchSource],
        phases: Sequence[Phase],
        mask: MaskOptions,
        rank: int,
        world_size: int,
    ) -> None:
        self.phases = phases
        self.steps = phases[-1].first_step + phases[-1].steps
        self._sources: dict[int, BatchSource | SourceSpec] = dict(sources)
        self._mask = mask
        self._rank = rank
        self._world_size = world_size
        self.transforms: Mapping[int, StackTransform] = {}

    def __getitem__(self, step: int) -> BatchStack | UserError:
        """Return the micro-batches of a step, or the error that making them raised.

        The error is returned because `DataLoader` would wrap one that a worker raises in a
        traceback; the training process raises it with its own message.
        """
        phase = phase_at(self.phases, step)
        share = self._share(phase, step)
        rate = rate_at(self._mask.rate, self._mask.rate_end, step, self.steps)
        try:
            stack = self._source(phase).stack(*share, rate)
            if transform := self.transforms.get(phase.row_tokens):
                stack = transform(stack, rows_of_rank(*share))
            return stack
        except UserError as error:
            return error

    def row_numbers(self, step: int) -> Int64Array:
        """Return the numbers of the rows of each micro-batch, [K, B]: see `Loader.row_numbers`."""
        rows = rows_of_rank(*self._share(phase_at(self.phases, step), step))
        return np.hstack([2 * rows, 2 * rows + 1]) if self._mask.bidirectional else rows

    def build_epoch_indices(self, step: int) -> None:
        """Build the epoch indices that a step needs (all ranks, in the same order)."""
        phase = phase_at(self.phases, step)
        self._source(phase).epoch_of(phase.row_of(step + 1) - 1)

    def __getstate__(self) -> dict[str, Any]:
        specs = {
            length: source.spec if isinstance(source, BatchSource) else source
            for length, source in self._sources.items()
        }
        return {**vars(self), "_sources": specs}

    def _share(self, phase: Phase, step: int) -> tuple[int, int, int, int, int]:
        """Return the arguments of `rows_of_rank`."""
        first_row = phase.row_of(step)
        return first_row, phase.batch_rows, self._rank, self._world_size, phase.micro_rows

    def _source(self, phase: Phase) -> BatchSource:
        source = self._sources[phase.row_tokens]
        if isinstance(source, SourceSpec):
            source = self._sources[phase.row_tokens] = source.open()
        return source


class Loader:
    """Yields the micro-batches of step after step to the training loop."""

    def __init__(self, dataset: StepDataset, options: LoaderOptions, device: torch.device) -> None:
        self._dataset = dataset
        self._on_gpu = device.type == "cuda"
        default = _WORKERS_ON_GPU if self._on_gpu else 0
        self._workers = default if options.workers is None else options.workers
        self._prefetch = options.prefetch

    def set_transforms(self, transforms: Mapping[int, StackTransform]) -> None:
        """Set what is added to every stack, such as cached soft targets, by length of row."""
        self._dataset.transforms = transforms

    def step_tokens(self, step: int) -> int:
        """Return the tokens of the rows of a step, padding included, over all ranks."""
        phase = phase_at(self._dataset.phases, step)
        return phase.batch_rows * phase.row_tokens

    def row_numbers(self, step: int) -> Int64Array:
        """Return the numbers of the rows of each of this rank's micro-batches, [K, B].

        A row has the same number on any rank and in any micro-batch, and no other row of the step
        has it. With `mask.bidirectional` the reversed rows, in the second half of the micro-batch,
        have numbers of their own.
        """
        return self._dataset.row_numbers(step)

    def steps_from(self, first: int) -> Generator[list[Batch], None, None]:
        """Yield this rank's micro-batches of each step from `first` to the last (all ranks).

        Closing the generator ends the workers.

        Raises:
            UserError: raised in this process or in a worker, with the same message.
        """
        loader = DataLoader(
            self._dataset,
            batch_size=None,
            sampler=self._indexed_steps(first),
            num_workers=self._workers,
            collate_fn=_identity,
            worker_init_fn=_die_with_parent,
            pin_memory=self._on_gpu,
            multiprocessing_context=get_context("spawn") if self._workers else None,
            prefetch_factor=-(-self._prefetch // self._workers) if self._workers else None,
            generator=torch.Generator(),  # leaves the default generator as it is
        )
        with _stop_signals_blocked():
            stacks = iter(loader)
        try:
            for stack in stacks:
                if isinstance(stack, UserError):
                    raise stack
                yield stack.unstack()
        finally:
            del stacks  # the last reference: its destructor stops and joins the workers

    def _indexed_steps(self, first: int) -> Iterator[int]:
        """Yield step numbers, each once its epoch indices exist.

        This runs in the training process, as many steps ahead on every rank: rank 0 builds an
        index while the others wait, and only then does a worker of any rank read it. Otherwise
        every worker of every rank would build the index for itself.
        """
        for step in range(first, self._dataset.steps):
            self._dataset.build_epoch_indices(step)
            yield step


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Start processes with the stop signals blocked, from their first instruction on.

    A scheduler signals every process of a job. The training process finishes its step and saves;
    a worker that died of the same signal would turn that into an error before the checkpoint is
    written. A new process inherits the mask, so a worker is protected from its start. It ends
    when the training process closes it or exits.
    """
    # Started by the first worker instead, the tracker would unblock TERM and INT.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        # Signals that arrived in between are delivered now.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_parent(worker: int) -> None:
    """Have the kernel kill this worker when the training process is killed.

    Torch's workers check for that themselves, but only between batches, every few seconds; until
    then they would keep memory that a restarted run needs.
    """
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _identity(stack: Any) -> Any:
    return stack
