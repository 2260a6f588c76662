"""A run from its first check to its last status: everything around the loop."""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from data_prep.errors import UserError
from pretrain.checkpoint import (
    FoundCheckpoint,
    Progress,
    adapt_to_ranks,
    find_newest,
    load_checkpoint,
    remove_leftovers,
)
from pretrain.cluster import Cluster
from pretrain.config import RunRecipe, identity_of
from pretrain.inputs import Inputs, open_inputs
from pretrain.model import Bert
from pretrain.run_directory import RunDirectory
from pretrain.tasks import Task

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
                print(f"{run.path} is done ({recipe.train.steps} steps); nothing to do.")
            return
        inputs = open_inputs(recipe, run, cluster)
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
    from pretrain.engine import Engine, read_deepspeed_config
    from pretrain.loop import Training, train
    from pretrain.metrics import RunLog

    on_gpu = cluster.device.type == "cuda"
    config = read_deepspeed_config(recipe, cluster.world_size, on_gpu)
    found = _choose_checkpoint(recipe, run, cluster, inputs)
    universal = found is not None and found.world_size != cluster.world_size
    engine = Engine(model.to(cluster.device), recipe, config, universal)
    progress = load_checkpoint(engine, found) if found else Progress()
    log = RunLog(run.path, progress.step, recipe.train.steps) if cluster.is_main else None
    training = Training(
        recipe=recipe,
        run=run,
        cluster=cluster,
        engine=engine,
        task=task,
        source=inputs.source,
        validation=inputs.validation,
        facts={**_facts(recipe, cluster, inputs, model), **facts},
        log=log,
    )
    try:
        stopped = train(training, progress)
    except BaseException as error:
        if cluster.is_main:
            run.write_status("failed", progress, str(error) or repr(error))
        raise
    finally:
        if log is not None:
            log.close()
    if cluster.is_main:
        _finish(run, progress, stopped)


def _choose_checkpoint(
    recipe: RunRecipe, run: RunDirectory, cluster: Cluster, inputs: Inputs
) -> FoundCheckpoint | None:
    """Open the run folder and return the checkpoint to continue from, if there is one."""

    def open_folder() -> FoundCheckpoint | None:
        run.begin(recipe)
        remove_leftovers(run.checkpoints)
        found = find_newest(run.checkpoints)
        run.write_status("running", Progress(step=found.step if found else 0), "started")
        return found

    found = cluster.on_main(open_folder)
    if found is None:
        return None
    if found.facts["corpus"] != inputs.corpus.fingerprint:
        raise UserError(
            f"The checkpoint {found.path} was trained on corpus {found.facts['corpus']}, but "
            f"{recipe.corpus.path} is {inputs.corpus.fingerprint}: restore that corpus, or choose "
            "another run.path."
        )
    if cluster.is_main:
        print(f"Continuing from {found.path}.")
    return adapt_to_ranks(found, cluster)


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


def _finish(run: RunDirectory, progress: Progress, stopped: str | None) -> None:
    last = f"step_{progress.step:08d}"
    if stopped is None:
        run.write_status("done", progress, "reached the last step", last_checkpoint=last)
        print(f"Done: {run.path} at step {progress.step}, {progress.tokens_seen:,} real tokens.")
        return
    run.write_status("preempted", progress, stopped, last_checkpoint=last)
    print(f"Stopped by {stopped} after step {progress.step}; the same command goes on from there.")
