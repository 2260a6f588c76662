"""The loader: makes the batches of the coming steps, in processes of their own if asked to.

A step's rows follow from its number alone, so a worker needs no state and gives the same batches
as any other; how many there are changes nothing but the time that training waits.
"""

import contextlib
import ctypes
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from multiprocessing import get_context, resource_tracker
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from data_prep.corpus.shards import Int64Array
from data_prep.errors import UserError
from pretrain.config.phases import Phase, phase_at
from pretrain.config.run import LoaderOptions, MaskOptions
from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource, Share, SourceSpec, rows_of_share
from pretrain.masking.base import rate_at

# Adds something to a share, given the numbers of its rows [K, rows].
ShareTransform = Callable[[Share, Int64Array], Share]

_WORKERS_ON_GPU = 2
_STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in Linux's sys/prctl.h


class StepShares(Dataset[Share | UserError]):
    """A rank's share of every step, by the step's number.

    It travels to workers without its open files; each worker opens them again when it is first
    asked.

    Args:
        sources: by the length of their rows.
        phases: of the run.
        mask: its schedule of rates.
        rank, world_size: whose share.

    Attributes:
        transforms: what is added to each share, by the length of its rows; none unless set.
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
        self.transforms: Mapping[int, ShareTransform] = {}

    def __getitem__(self, step: int) -> Share | UserError:
        """Return the share of a step, or what the user must be told: an error keeps its words."""
        phase = phase_at(self.phases, step)
        try:
            place = (phase.row_of(step), phase.batch_rows, self._rank, self._world_size)
            rate = rate_at(self._mask.rate, self._mask.rate_end, step, self.steps)
            share = self._source(phase).share(*place, phase.micro_rows, rate)
            if transform := self.transforms.get(phase.row_tokens):
                share = transform(share, rows_of_share(*place, phase.micro_rows))
            return share
        except UserError as error:
            return error

    def prepare(self, step: int) -> None:
        """See that the plans of a step exist (all ranks, in the same order)."""
        phase = phase_at(self.phases, step)
        self._source(phase).epoch_of(phase.row_of(step + 1) - 1)

    def __getstate__(self) -> dict[str, Any]:
        specs = {
            length: source.spec if isinstance(source, BatchSource) else source
            for length, source in self._sources.items()
        }
        return {**vars(self), "_sources": specs}

    def _source(self, phase: Phase) -> BatchSource:
        source = self._sources[phase.row_tokens]
        if isinstance(source, SourceSpec):
            source = self._sources[phase.row_tokens] = source.open()
        return source


class Loader:
    """Gives the training loop its micro-batches, step after step."""

    def __init__(self, shares: StepShares, options: LoaderOptions, device: torch.device) -> None:
        self._shares = shares
        self._on_gpu = device.type == "cuda"
        default = _WORKERS_ON_GPU if self._on_gpu else 0
        self._workers = default if options.workers is None else options.workers
        self._prefetch = options.prefetch

    def set_transforms(self, transforms: Mapping[int, ShareTransform]) -> None:
        """Add to every batch, by the length of its rows, such as cached soft targets."""
        self._shares.transforms = transforms

    def step_tokens(self, step: int) -> int:
        """Return the tokens of the rows of a step, padding included, over all ranks."""
        phase = phase_at(self._shares.phases, step)
        return phase.batch_rows * phase.row_tokens

    def steps_from(self, first: int) -> Generator[list[Batch], None, None]:
        """Yield this rank's micro-batches of each step from `first` to the last (all ranks).

        Closing the generator ends the workers.

        Raises:
            UserError: what a worker came upon, in the words it would have in this process.
        """
        loader = DataLoader(
            self._shares,
            batch_size=None,
            sampler=self._announced(first),
            num_workers=self._workers,
            collate_fn=_as_it_is,
            worker_init_fn=_die_with_parent,
            pin_memory=self._on_gpu,
            multiprocessing_context=get_context("spawn") if self._workers else None,
            prefetch_factor=-(-self._prefetch // self._workers) if self._workers else None,
            generator=torch.Generator(),  # the default one would be drawn from, and is not ours
        )
        with _signals_held_back():
            shares = iter(loader)
        try:
            for share in shares:
                if isinstance(share, UserError):
                    raise share
                yield share.micro_batches()
        finally:
            del shares  # the last reference: this tells the workers to end, and waits for them

    def _announced(self, first: int) -> Iterator[int]:
        """Yield step numbers, each once its plans exist.

        This runs in the training process, as many steps ahead on every rank: rank 0 builds a plan
        while the others wait, and only then does a worker of any rank read it. A worker that came
        first would build the plan itself, and so would all others.
        """
        for step in range(first, self._shares.steps):
            self._shares.prepare(step)
            yield step


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Start processes that no signal to stop can end, from their first instruction on.

    A scheduler signals every process of a job. The training process finishes its step and saves;
    a worker that died of the same signal would turn that into an error before the checkpoint is
    there. What is blocked here is inherited and stays blocked, so there is no moment at which a
    new worker is not protected yet. It ends when it is told to, or with the training process.
    """
    # Started by the first worker instead, it would lift the block for TERM and INT.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        # What came meanwhile is delivered now.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_parent(worker: int) -> None:
    """Ask the kernel to end this worker when the training process is killed.

    Torch's workers notice that by themselves, but only when they next wait for work, seconds
    later; until then they would keep memory that a restarted run needs.
    """
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _as_it_is(share: Any) -> Any:
    return share
