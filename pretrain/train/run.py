"""A run from its first check to its last status: everything around the loop."""

import contextlib
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from pretrain.checkpoint_manifest import FoundCheckpoint, find_newest
from pretrain.config.phases import phases_of
from pretrain.config.run import RunRecipe, identity_of
from pretrain.data.setup import Inputs, open_inputs
from pretrain.distributed import Cluster
from pretrain.model import Bert
from pretrain.model.backend import choose_backend, describe_backend
from pretrain.train.checkpoint import (
    Progress,
    adapt_to_ranks,
    check_continues,
    load_checkpoint,
    needs_conversion,
    remove_leftovers,
)
from pretrain.train.evaluation import ValidationSet
from pretrain.train.preemption import BY_STOP_FILE, PreemptionMonitor
from pretrain.train.run_directory import RunDirectory
from pretrain.train.task import Task

Prepare = Callable[[Inputs, Cluster], tuple[Bert, Task, dict[str, Any]]]


def execute(recipe: RunRecipe, prepare: Prepare) -> None:
    """Run a recipe, or continue it where its newest checkpoint stands (all ranks).

    Args:
        recipe: what to do.
        prepare: makes the model, its task and extra facts for the manifest, once the inputs
            are verified.

    Raises:
        UserError: before any compute is spent when an input does not fit.
    """
    cluster = Cluster.join(recipe.run.world_size)
    run = RunDirectory(recipe.run.path)
    try:
        run.check_identity(recipe)
        if run.is_done:
            if cluster.is_main:
                print(f"{run.path} is done ({run.status()['step']} steps); nothing to do.")
            return
        inputs = open_inputs(recipe, run.plans, cluster)
        model, task, facts = prepare(inputs, cluster)
        _train(recipe, run, cluster, inputs, model, task, facts)
    except UserError:
        if cluster.is_main:
            run.discard_unless_begun()
        raise
    finally:
        cluster.leave()


def _train(
    recipe: RunRecipe,
    run: RunDirectory,
    cluster: Cluster,
    inputs: Inputs,
    model: Bert,
    task: Task,
    facts: dict[str, Any],
) -> None:
    # Imported here because DeepSpeed takes ten seconds: bad input is answered before that.
    from pretrain.model.compilation import CompilationCounter, apply_backend
    from pretrain.monitoring.flops import StepFlops
    from pretrain.monitoring.logger import RunLog
    from pretrain.monitoring.memory_estimate import Activations, MemoryForecast, forecast
    from pretrain.train.deepspeed_config import read_deepspeed_config
    from pretrain.train.deepspeed_engine import Engine
    from pretrain.train.loop import Training, train

    on_gpu = cluster.device.type == "cuda"
    config = read_deepspeed_config(recipe, cluster.world_size, on_gpu)
    facts |= _facts(recipe, cluster, inputs, model)
    facts["zero_stage"] = config["zero_optimization"]["stage"]
    backend = choose_backend(
        recipe.kernels, recipe.train, model.shape, cluster.device, facts["zero_stage"]
    )
    apply_backend(model, backend)
    if cluster.is_main:
        print(describe_backend(recipe.kernels, backend, cluster.device))
    found = _choose_checkpoint(recipe, run, cluster, facts)
    teachers = facts.get("teacher_parameters_kept", 0)
    parts = forecast(recipe, config, model, cluster.world_size, teachers)
    parts += task.memory_parts(Activations.of(recipe, model))
    memory = MemoryForecast(parts, cluster.device)
    if cluster.is_main:
        print(memory.table())
    progress, log = Progress(), None
    try:
        with clear_disk_errors(run.path):
            engine = Engine(
                model.to(cluster.device),
                recipe,
                config,
                universal=bool(found and needs_conversion(found, cluster)),
                trained=task.trained(model),
            )
            if found:
                progress = load_checkpoint(engine, adapt_to_ranks(found, cluster))
            if cluster.is_main:
                log = RunLog(run.path, progress.step, recipe.train.steps)
            training = Training(
                recipe=recipe,
                run=run,
                cluster=cluster,
                engine=engine,
                task=task,
                layers=model.shape.layers,
                compilations=CompilationCounter() if backend.compiled else None,
                flops=StepFlops(
                    trained=model.shape,
                    directions=2 if recipe.mask.bidirectional else 1,
                ),
                memory=memory,
                loader=inputs.loader,
                validation=ValidationSet(
                    inputs.validation,
                    recipe.validation.rows,
                    phases_of(recipe.train)[-1].micro_rows,
                    cluster,
                ),
                preemption=PreemptionMonitor(run.path, recipe.train.max_minutes),
                facts=facts,
                log=log,
            )
            stopped = train(training, progress, found.facts["validation"] if found else {})
            training.preemption.ignore_signals()
    except UserError as error:
        # Any other exception may be the machine's fault: the status stays at "running", and a
        # batch script that finds it so after the job may try again.
        if cluster.is_main:
            with contextlib.suppress(OSError):
                run.write_status("failed", progress, str(error))
        raise
    finally:
        if log is not None:
            log.close()
    if cluster.is_main:
        _finish(run, progress, stopped, recipe)


def _choose_checkpoint(
    recipe: RunRecipe, run: RunDirectory, cluster: Cluster, facts: dict[str, Any]
) -> FoundCheckpoint | None:
    """Open the run folder and return the checkpoint to continue from, if there is one."""

    def open_folder() -> FoundCheckpoint | None:
        with clear_disk_errors(run.path):
            run.begin(recipe)
            remove_leftovers(run.checkpoints)
            found = find_newest(run.checkpoints)
            run.write_status("running", Progress(step=found.step if found else 0), "started")
        if found is not None:
            check_continues(found, facts, cluster.world_size)
            print(f"Continuing from {found.path}.")
        return found

    return cluster.on_main(open_folder)


def _facts(recipe: RunRecipe, cluster: Cluster, inputs: Inputs, model: Bert) -> dict[str, Any]:
    """Return what every checkpoint's manifest says of the run."""
    return {
        "shape": model.shape.to_dict(),
        "parameters": model.count_parameters(),
        "corpus": inputs.corpus.fingerprint,
        "corpus_documents": inputs.corpus.num_documents,
        "corpus_tokens": inputs.corpus.num_tokens,
        "tokenizer": inputs.tokenizer.fingerprint,
        "identity": identity_of(recipe),
        "device": _device_name(cluster),
        "versions": {name: version(name) for name in ("torch", "deepspeed", "transformers")},
        "started": time.strftime("%Y-%m-%d"),
    }


def _device_name(cluster: Cluster) -> str:
    if cluster.device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(cluster.device)
    return f"CPU ({platform.machine()})"


def _finish(run: RunDirectory, progress: Progress, stopped: str | None, recipe: RunRecipe) -> None:
    last = f"step_{progress.step:08d}"
    if stopped is None:
        at_end = progress.step == recipe.train.steps
        reason = "reached the last step" if at_end else "used up train.budget_minutes"
        run.write_status("done", progress, reason, last_checkpoint=last, requeue=False)
        print(f"Done: {run.path} at step {progress.step}, {progress.tokens_seen:,} real tokens.")
        return
    # A person who leaves a stop file does not want the batch script to start again.
    requeue = stopped != BY_STOP_FILE
    run.write_status("preempted", progress, stopped, last_checkpoint=last, requeue=requeue)
    print(f"Stopped by {stopped} after step {progress.step}; the same command goes on from there.")
