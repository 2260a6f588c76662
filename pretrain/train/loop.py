"""The training loop. It reads from top to bottom in the order things happen.

Teacher and student share it; what differs is the task, which turns a batch into loss terms.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from data_prep.errors import UserError
from pretrain.config.run import RunRecipe
from pretrain.data.batch import Batch
from pretrain.data.loader import Loader
from pretrain.data.trained_positions import TrainedPositions
from pretrain.distributed import Cluster
from pretrain.losses.term import normalised_loss
from pretrain.model.compilation import CompilationCounter
from pretrain.model.dropout_rng import dropout_keys
from pretrain.monitoring.flops import StepFlops
from pretrain.monitoring.gpu_peaks import device_peak
from pretrain.monitoring.logger import RunLog
from pretrain.monitoring.memory_estimate import MemoryForecast
from pretrain.monitoring.window_metrics import MetricsWindow
from pretrain.optim.lr_schedule import LrSchedule
from pretrain.run_facts import RunFacts
from pretrain.train.checkpoint import Progress, save_checkpoint
from pretrain.train.evaluation import ValidationSet
from pretrain.train.nonfinite import NonfiniteCheck
from pretrain.train.preemption import PreemptionMonitor, reason_of
from pretrain.train.run_directory import RunDirectory
from pretrain.train.task import Task
from pretrain.train.time_budget import TimeBudget

if TYPE_CHECKING:  # DeepSpeed takes ten seconds to import, and the loop itself needs none of it
    from pretrain.train.deepspeed_engine import Engine

COUNTS = ("masked", "samples", "tokens", "squares")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything a run needs, made ready by `run.py`."""

    recipe: RunRecipe
    run: RunDirectory
    cluster: Cluster
    engine: "Engine"
    task: Task
    layers: int  # of the trained model
    compilations: CompilationCounter | None  # None where nothing is compiled
    flops: StepFlops
    memory: MemoryForecast
    loader: Loader
    validation: ValidationSet
    preemption: PreemptionMonitor
    facts: RunFacts  # for the manifest of every checkpoint
    positions: TrainedPositions
    kept_weights: dict[str, torch.Tensor]  # in every checkpoint, but not trained
    log: RunLog | None  # rank 0 only


@dataclass(frozen=True, kw_only=True)
class StepTotals:
    """Sums over all ranks, taken before a step is computed."""

    counts: dict[str, int]
    used_ms: int  # of the run's time budget
    bad_ranks: int  # on which an earlier step had a NaN or infinity
    stop_reason: str | None  # why to stop after this step


def train(t: Training, progress: Progress, scores: dict[str, float]) -> str | None:
    """Train from `progress` to the last step (all ranks).

    Args:
        t: what to train with.
        progress: how far the run has come; updated in place.
        scores: of the last validation, stated in manifests until the next one.

    Returns:
        why the run stopped early, or None when it reached its last step or the end of its
        budget. In both cases a checkpoint was committed last.
    """
    window = MetricsWindow(t.cluster, device_peak(t.cluster.device, t.recipe.train.precision))
    if progress.step == 0:
        scores = _validate(t, progress, window)
    with closing(t.loader.steps_from(progress.step)) as steps:
        return _train(t, progress, window, scores, steps)


def _train(
    t: Training,
    progress: Progress,
    window: MetricsWindow,
    scores: dict[str, float],
    steps: Iterator[list[Batch]],
) -> str | None:
    recipe, cluster, options = t.recipe, t.cluster, t.recipe.train
    check = NonfiniteCheck()
    schedule = LrSchedule(recipe.optim, options)
    budget = TimeBudget(options.budget_minutes, progress.trained_ms, cluster.is_main)
    done = progress.step == options.steps or budget.share(progress.trained_ms) >= 1
    while not done:
        # This rank's rows of the step, as micro-batches.
        started = time.perf_counter()
        micro_batches = next(steps)
        waited_s = time.perf_counter() - started

        # One collective a step: divisors of the losses, the time used, and whether to stop.
        totals = _sum_over_ranks(micro_batches, check, budget, t.preemption, cluster)
        counts, stop_reason = totals.counts, totals.stop_reason
        _raise_if_nonfinite(t, progress, totals.bad_ranks)

        # Gradients are summed over the micro-batches; the last one updates the weights.
        learning_rate = schedule.lr(progress.step, budget.share(totals.used_ms))
        t.engine.set_micro_batches(len(micro_batches))
        spec = t.task.at(progress.step)
        rows_KB = t.loader.row_numbers(progress.step)
        all_keys = dropout_keys(options.seed, progress.step, rows_KB, t.layers, cluster.device)
        for batch, keys in zip(micro_batches, all_keys, strict=True):
            terms = t.engine(batch.to(cluster.device), spec.terms, keys, spec.capture)
            loss = normalised_loss(terms, counts)
            t.engine.backward(loss)
            t.engine.step(learning_rate, spec.stage)
            window.add_terms(terms, counts)
            check.add(loss)
        if (grad_norm := t.engine.device_grad_norm) is not None:
            check.add(grad_norm)
        check.close_step()

        progress.step += 1
        progress.samples_seen += counts["samples"]
        progress.tokens_seen += counts["tokens"]
        progress.trained_ms = totals.used_ms
        window.add_step(
            tokens=counts["tokens"],
            padded_tokens=t.loader.step_tokens(progress.step - 1),
            flops=t.flops.of_step(counts, spec.teacher_passes, spec.logits_at_all_tokens),
            data_wait_s=waited_s,
        )

        done = progress.step == options.steps or budget.share(totals.used_ms) >= 1
        last = done or stop_reason is not None
        logs = progress.step % recipe.log.every_steps == 0 or last
        saves = progress.step % recipe.checkpoint.every_steps == 0 or last
        if logs:
            _log(t, progress, window, learning_rate)
        if logs or saves:
            # Logging has synchronised already, and no checkpoint may hold NaN or infinity.
            _raise_if_nonfinite(t, progress, *cluster.sum([check.synchronised_flag()]))
        if progress.step % recipe.validation.every_steps == 0 or done:
            scores = _validate(t, progress, window)
        if saves:
            _save(t, progress, window, scores)
        if stop_reason is not None and not done:
            return stop_reason
    return None


def _sum_over_ranks(
    micro_batches: list[Batch],
    check: NonfiniteCheck,
    budget: TimeBudget,
    preemption: PreemptionMonitor,
    cluster: Cluster,
) -> StepTotals:
    """Sum what each rank contributes to the totals of the step, in one all-reduce."""
    own = [batch.counts for batch in micro_batches]
    counts = [sum(c[name] for c in own) for name in COUNTS]
    sums = cluster.sum([*counts, budget.main_used_ms(), check.flag(), *preemption.flags()])
    used_ms, bad_ranks, *stops = sums[len(COUNTS) :]
    return StepTotals(
        counts=dict(zip(COUNTS, sums, strict=False)),
        used_ms=used_ms,
        bad_ranks=bad_ranks,
        stop_reason=reason_of(stops),
    )


def _raise_if_nonfinite(t: Training, progress: Progress, bad_ranks: int) -> None:
    if bad_ranks:
        raise UserError(
            f"The loss is not finite at step {progress.step} or just before, on {bad_ranks} of "
            f"{t.cluster.world_size} rank(s): lower optim.lr (it is {t.recipe.optim.lr}) or "
            "lengthen optim.warmup_steps, in another run.path."
        )


def _log(t: Training, progress: Progress, window: MetricsWindow, learning_rate: float) -> None:
    steps = window.steps
    figures = window.close() | t.memory.figures()
    if teacher_ms := t.task.teacher_ms() / steps:
        figures["speed/teacher_ms"] = teacher_ms
        figures["speed/teacher_share"] = teacher_ms / figures["speed/step_ms"]
    figures |= {
        "optim/lr": learning_rate,
        "optim/grad_norm": t.engine.grad_norm,
        "optim/loss_scale": t.engine.loss_scale,
        "optim/skipped_steps": t.engine.skipped_steps,
        "progress/tokens": progress.tokens_seen,
    }
    if t.compilations is not None:
        # Any after the first lines are lost time.
        figures["speed/recompilations"] = t.compilations.since_last()
    if t.log is not None:
        t.log.write(progress.step, progress.samples_seen, figures)
        t.memory.compare_with_peak()


def _validate(t: Training, progress: Progress, window: MetricsWindow) -> dict[str, float]:
    started = time.perf_counter()
    scores = t.validation.evaluate(t.engine, t.task.validation(progress.step))
    if t.log is not None:
        t.log.write(progress.step, progress.samples_seen, scores)
    window.pause(time.perf_counter() - started)
    token = t.validation.baseline.token
    return {**scores, "validation/step": progress.step, "validation/baseline_token": token}


def _save(t: Training, progress: Progress, window: MetricsWindow, scores: dict[str, float]) -> None:
    started = time.perf_counter()
    reached = t.positions.after(progress.step)
    facts = replace(t.facts, validation=scores, trained_positions=reached)
    path = save_checkpoint(
        t.run.checkpoints,
        t.engine,
        progress,
        facts,
        t.cluster,
        t.recipe.checkpoint.keep,
        t.kept_weights,
    )
    seconds = time.perf_counter() - started
    if t.log is not None:
        t.log.write(progress.step, progress.samples_seen, {"checkpoint/save_s": seconds})
        t.run.write_status("running", progress, "a checkpoint was saved", last_checkpoint=path.name)
    window.pause(seconds)
