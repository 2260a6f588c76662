"""NaN or infinity ends the run within two steps, on all ranks, before any save."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from data_prep.corpus.shards import Int64Array
from data_prep.errors import UserError
from pretrain.config.optim import OptimOptions
from pretrain.config.train import TrainOptions
from pretrain.distributed import Cluster
from pretrain.losses.term import Term
from pretrain.model import BertShape
from pretrain.monitoring.flops import StepFlops
from pretrain.monitoring.memory_estimate import MemoryForecast
from pretrain.train import loop
from pretrain.train.checkpoint import Progress
from pretrain.train.evaluation import Baseline
from pretrain.train.nonfinite import NonfiniteCheck
from pretrain.train.task import StepSpec

STEPS = 12


def checked(*losses: float) -> NonfiniteCheck:
    """Return a check after steps of one micro-batch with these losses."""
    check = NonfiniteCheck()
    for loss in losses:
        check.add(torch.tensor(loss))
        check.close_step()
    return check


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_flag_lags_one_step(bad: float) -> None:
    """The flag covers every step but the last one, which may still run."""
    check = checked(1.0, bad)
    assert check.flag() == 0, "the last step may still run"
    check.add(torch.tensor(1.0))
    check.close_step()
    assert check.flag() == 1


def test_synchronised_flag_has_the_last_step() -> None:
    """The synchronised flag covers the last step too, and stays set."""
    check = checked(1.0, math.nan)
    assert check.synchronised_flag() == 1
    check.add(torch.tensor(1.0))
    check.close_step()
    assert check.synchronised_flag() == 1


def test_finite_losses_pass() -> None:
    """Finite losses of any size set no flag."""
    assert checked(0.0, -5.0, 3e38, 1e-40).synchronised_flag() == 0


def test_opposite_infinities_do_not_cancel() -> None:
    """Infinities of opposite sign in two micro-batches are found."""
    check = NonfiniteCheck()
    for value in (math.inf, -math.inf, 1.0):
        check.add(torch.tensor(value, dtype=torch.float64))
    check.close_step()
    assert check.synchronised_flag() == 1


def test_autograd_graph_is_freed() -> None:
    """The check holds no autograd graph."""
    check = NonfiniteCheck()
    check.add(torch.ones((), requires_grad=True) * 2)
    assert check._sum is not None and not check._sum.requires_grad


def test_all_ranks_stop_in_one_step(tmp_path: Path) -> None:
    """A NaN on one rank stops all ranks in the same step."""
    mp.spawn(check_on_two_ranks, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    stopped = [(tmp_path / f"rank_{rank}").read_text() for rank in range(2)]
    # Rank 1's result of step 3 is read once step 4 is launched, before step 5.
    assert stopped == ["5", "5"]


def check_on_two_ranks(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    cluster = Cluster(rank, rank, 2)
    check = NonfiniteCheck()
    for step in range(1, STEPS):
        (bad_ranks,) = cluster.sum([check.flag()])
        if bad_ranks:
            (Path(folder) / f"rank_{rank}").write_text(str(step))
            break
        check.add(torch.tensor(math.nan if (rank, step) == (1, 3) else 1.0))
        check.close_step()
    cluster.leave()


class Engine:
    """Counts steps, and returns the losses and norms of the test."""

    loss_scale, skipped_steps, zero_stage = 1.0, 0, 0

    def __init__(self, losses: dict[int, float], grad_norms: dict[int, float]) -> None:
        self.losses, self.grad_norms, self.steps = losses, grad_norms, 0

    def __call__(self, batch: Any, objective: Any, dropout_keys: Any, capture: Any) -> list[Term]:
        self.steps += 1
        terms: list[Term] = objective(torch.tensor(self.losses.get(self.steps, 1.0)), batch)
        return terms

    def set_micro_batches(self, micro_batches: int) -> None: ...

    def backward(self, loss: torch.Tensor) -> None: ...

    def step(self, learning_rate: float, stage: int) -> None: ...

    @property
    def grad_norm(self) -> float:
        return self.grad_norms.get(self.steps, 1.0)

    @property
    def device_grad_norm(self) -> torch.Tensor:
        return torch.tensor(self.grad_norm)


class Task:
    def at(self, step: int) -> StepSpec:
        return StepSpec(terms=self.terms)

    def validation(self, steps_done: int) -> StepSpec:
        return StepSpec(terms=self.terms)

    def teacher_ms(self) -> float:
        return 0.0

    def terms(self, outputs: torch.Tensor, batch: Any) -> list[Term]:
        return [Term("loss/mlm", outputs, "masked", 1.0)]


class Rows:
    """Batches of no tensors, and their counts."""

    def step_tokens(self, step: int) -> int:
        return 64

    def row_numbers(self, step: int) -> Int64Array:
        return np.zeros((1, 1), np.int64)

    def steps_from(self, first: int) -> Iterator[list[Any]]:
        batch = SimpleNamespace(counts=dict.fromkeys(loop.COUNTS, 1), to=lambda device: batch)
        while True:
            yield [batch]


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, samples_seen: int, values: dict[str, float]) -> None:
        self.lines.append((step, values))


def training(
    alone: Cluster, shape: BertShape, *, every: int, losses: dict[int, float], **norms: Any
) -> loop.Training:
    recipe = SimpleNamespace(
        train=TrainOptions(steps=STEPS, batch_rows=1, micro_rows=1),
        optim=OptimOptions(),
        log=SimpleNamespace(every_steps=every),
        checkpoint=SimpleNamespace(every_steps=every, keep=1),
        validation=SimpleNamespace(every_steps=STEPS),
    )
    made: Any = SimpleNamespace(
        recipe=recipe,
        cluster=alone,
        engine=Engine(losses, norms.get("grad_norms", {})),
        task=Task(),
        layers=shape.layers,
        compilations=None,
        flops=StepFlops(trained=shape),
        loader=Rows(),
        validation=SimpleNamespace(evaluate=lambda engine, spec: {}, baseline=Baseline(5, 0.1)),
        preemption=SimpleNamespace(flags=lambda: [0, 0, 0]),
        log=Log(),
        memory=MemoryForecast([], alone.device),
    )
    return made  # type: ignore[no-any-return]


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the steps whose checkpoints are committed."""
    steps: list[int] = []
    monkeypatch.setattr(loop, "_save", lambda t, progress, *rest: steps.append(progress.step))
    return steps


def test_nonfinite_loss_ends_run_in_two_steps(
    alone: Cluster, tiny_shape: BertShape, saves: list[int]
) -> None:
    """The run ends at most two steps after a NaN, though no log line is due."""
    run = training(alone, tiny_shape, every=STEPS, losses={4: math.nan})
    progress = Progress(step=1)
    run.engine.steps = 1
    with pytest.raises(UserError, match=r"not finite at step 5 or just before, on 1 of 1 rank"):
        loop.train(run, progress, {})
    assert run.engine.steps == 5 and saves == []


def test_no_checkpoint_after_nonfinite_loss(
    alone: Cluster, tiny_shape: BertShape, saves: list[int]
) -> None:
    """No checkpoint follows an infinite loss, but the log line is written."""
    run = training(alone, tiny_shape, every=2, losses={4: math.inf})
    with pytest.raises(UserError, match="at step 4"):
        loop.train(run, Progress(), {})
    assert saves == [2]
    step, values = run.log.lines[-1]  # type: ignore[union-attr]
    assert step == 4 and values["loss/total"] == math.inf


def test_nonfinite_gradient_ends_run(
    alone: Cluster, tiny_shape: BertShape, saves: list[int]
) -> None:
    """A gradient norm that is NaN ends the run before the loss shows it."""
    run = training(alone, tiny_shape, every=4, losses={}, grad_norms={8: math.nan})
    with pytest.raises(UserError, match="at step 8"):
        loop.train(run, Progress(), {})
    assert saves == [4]


def test_finite_run_reaches_its_end(
    alone: Cluster, tiny_shape: BertShape, saves: list[int]
) -> None:
    """A finite run reaches its last step, with a checkpoint at every interval and the end."""
    run = training(alone, tiny_shape, every=5, losses={})
    progress = Progress()
    assert loop.train(run, progress, {}) is None
    assert progress.step == STEPS and saves == [5, 10, STEPS]
