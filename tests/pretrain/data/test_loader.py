"""The loader: the same batches for any number of workers, and workers that stop reliably."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch.utils.data import get_worker_info

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.samples import epoch_index
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.config.phases import phases_of
from pretrain.config.run import LoaderOptions, MaskOptions
from pretrain.config.train import TrainOptions
from pretrain.data.batch import Batch, BatchStack
from pretrain.data.batch_source import BatchSource
from pretrain.data.loader import Loader, StepDataset
from tests.synthetic_corpora import prose_shards, write_corpus

CPU = torch.device("cpu")
MASK = MaskOptions(rate=0.1, rate_end=0.5)
STEPS = 12
LONG = {"steps": 4, "row_tokens": 64, "batch_rows": 4, "micro_rows": 1}
TRAIN = TrainOptions(
    steps=STEPS, batch_rows=8, micro_rows=2, row_tokens=32, phases=[{"steps": 8}, LONG]
)  # type: ignore[list-item]


@pytest.fixture
def corpus(tmp_path: Path, tiny_tokenizer: Path) -> Path:
    tokenizer = load_tokenizer(tiny_tokenizer)
    write_corpus(
        tmp_path / "corpus",
        {"train": prose_shards("loader", (9, 6))},
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
    )
    return tmp_path / "corpus"


def open_loader(
    corpus: Path,
    tokenizer: Path,
    workers: int,
    mask: MaskOptions = MASK,
    rank: int = 0,
    world_size: int = 2,
) -> Loader:
    phases = phases_of(TRAIN)
    sources = {
        length: BatchSource(
            Corpus.open(corpus),
            load_tokenizer(tokenizer),
            mask,
            seed=3,
            row_tokens=length,
            cache=corpus.parent / "cache",
        )
        for length in (32, 64)
    }
    dataset = StepDataset(sources, phases, mask, rank, world_size)
    return Loader(dataset, LoaderOptions(workers=workers, prefetch=3), CPU)


def values_of(batches: list[Batch]) -> list[tuple[object, ...]]:
    return [
        tuple(
            value.tolist() if isinstance(value, torch.Tensor) else value
            for value in (getattr(batch, field.name) for field in fields(batch))
        )
        for batch in batches
    ]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_row_numbers_follow_rows(corpus: Path, tiny_tokenizer: Path, bidirectional: bool) -> None:
    """A number names the same row of a step on any rank; reversed rows have other numbers."""
    mask = MaskOptions(bidirectional=bidirectional)
    loaders = [open_loader(corpus, tiny_tokenizer, 0, mask, rank, world)
               for rank, world in ((0, 1), (0, 2), (1, 2))]  # fmt: skip
    alone, *shares = (contents_by_number(loader) for loader in loaders)
    directions = 2 if bidirectional else 1
    assert [len(step) for step in alone] == [8 * directions] * 8 + [4 * directions] * 4
    assert [first | second for first, second in zip(*shares, strict=True)] == alone


def contents_by_number(loader: Loader) -> list[dict[int, tuple[int, ...]]]:
    """Return the ids of each row, by its number, for each step."""
    steps = []
    for step, batches in enumerate(loader.steps_from(0)):
        rows = {}
        for batch, numbers in zip(batches, loader.row_numbers(step), strict=True):
            for ids, number in zip(batch.input_ids.view(batch.rows, -1), numbers, strict=True):
                assert number not in rows
                rows[int(number)] = tuple(ids.tolist())
        steps.append(rows)
    return steps


def test_batches_independent_of_workers(corpus: Path, tiny_tokenizer: Path) -> None:
    """Batches are the same for any number of workers."""
    runs = []
    for workers in (0, 1, 2):
        with contextlib.closing(
            open_loader(corpus, tiny_tokenizer, workers).steps_from(0)
        ) as steps:
            runs.append([values_of(batches) for batches in steps])
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == STEPS
    assert len({str(step) for step in runs[0]}) == STEPS


def test_resume_inside_phase_same_batches(corpus: Path, tiny_tokenizer: Path) -> None:
    """A run resumed inside either phase gets the batches of the uninterrupted run."""
    whole = [values_of(batches) for batches in open_loader(corpus, tiny_tokenizer, 0).steps_from(0)]
    for first in (5, 8, 11):
        steps = open_loader(corpus, tiny_tokenizer, 0).steps_from(first)
        assert [values_of(batches) for batches in steps] == whole[first:]


def test_phase_shapes_and_rank_rows(corpus: Path, tiny_tokenizer: Path) -> None:
    """Each phase has its own batch shape, and each rank its own rows."""
    ranks = [open_loader(corpus, tiny_tokenizer, 0, rank=rank) for rank in (0, 1)]
    for number, both in enumerate(zip(*(r.steps_from(0) for r in ranks), strict=True)):
        length = 32 if number < 8 else 64
        assert [[b.row_tokens for b in batches] for batches in both] == [[length] * 2] * 2
        assert all(len(b.input_ids) == 64 for batches in both for b in batches)
        assert not torch.equal(both[0][0].input_ids, both[1][0].input_ids)
    assert [ranks[0].step_tokens(step) for step in (0, 7, 8, 11)] == [256, 256, 256, 256]


def test_masking_rate_rises_linearly(corpus: Path, tiny_tokenizer: Path) -> None:
    """The masking rate rises from `rate` to `rate_end` through the run."""
    shares = []
    for rank in (0, 1):
        steps = open_loader(corpus, tiny_tokenizer, 0, rank=rank).steps_from(0)
        for number, batches in enumerate(steps):
            masked, tokens = (sum(b.counts[name] for b in batches) for name in ("masked", "tokens"))
            shares.append((number, masked / tokens))
    early, late = (
        sum(share for number, share in shares if number in steps) / 8
        for steps in (range(4), range(8, 12))
    )
    assert 0.07 < early < 0.2 < 0.33 < late < 0.52


class WithoutBuilding(StepDataset):
    """Steps whose epoch index cannot be built in a worker."""

    def __getitem__(self, step: int) -> BatchStack | UserError:
        if get_worker_info() is not None:
            epoch_index._build = None  # type: ignore[assignment]  # calling it is an error
        return super().__getitem__(step)


def test_epoch_index_built_before_workers(corpus: Path, tiny_tokenizer: Path) -> None:
    """Every epoch index is built by the training process before a worker reads it."""
    loader = open_loader(corpus, tiny_tokenizer, 1)
    loader._dataset.__class__ = WithoutBuilding
    assert len(list(loader.steps_from(0))) == STEPS
    assert len(list(corpus.parent.glob("cache/*/plan.json"))) >= 3, "the steps cross an epoch"


def test_worker_error_keeps_message(corpus: Path, tiny_tokenizer: Path) -> None:
    """A UserError of a worker is raised with the message it has in the training process."""
    steps = open_loader(corpus, tiny_tokenizer, 1).steps_from(0)
    (corpus / "train_00000.tokens.bin").unlink()  # open in this process, not yet in the worker
    with pytest.raises(UserError) as own:
        Corpus.open(corpus)
    with pytest.raises(UserError) as from_worker:
        next(steps)
    assert str(from_worker.value) == str(own.value)
    assert "train_00000.tokens.bin is missing" in str(own.value)


def test_workers_ignore_stop_signals(corpus: Path, tiny_tokenizer: Path) -> None:
    """Stop signals end no worker; closing the generator ends all of them."""
    steps = open_loader(corpus, tiny_tokenizer, 2).steps_from(0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    next(steps)
    workers = worker_pids(os.getpid())
    assert len(workers) == 2
    for pid in workers:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            os.kill(pid, number)
    assert len(list(zip(steps, range(STEPS - 1), strict=False))) == STEPS - 1
    steps.close()
    assert not worker_pids(os.getpid())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


SCRIPT = """
import sys, time
from pathlib import Path
from tests.pretrain.data.test_loader import open_loader
if __name__ == "__main__":
    steps = open_loader(Path(sys.argv[1]), Path(sys.argv[2]), 1).steps_from(0)
    next(steps)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_workers_die_with_parent(corpus: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    """Workers end when the training process is killed."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(corpus), str(tiny_tokenizer)]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=path) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "ready\n"
        (worker,) = worker_pids(parent.pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(worker)


def worker_pids(parent: int) -> list[int]:
    """Return the loader workers among the children of a process."""
    processes = map(int, filter(str.isdigit, os.listdir("/proc")))
    return [pid for pid in processes if is_worker(pid, parent)]


def is_worker(pid: int, parent: int) -> bool:
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return int(stat[1]) == parent and stat[0] != "Z" and b"spawn_main" in command
    return False


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture(autouse=True)
def no_worker_remains() -> Iterator[None]:
    yield
    assert not worker_pids(os.getpid())
