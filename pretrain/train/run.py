"""A run from its first check to its last status: everything around the loop."""

import contextlib
from collections.abc import Callable

from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from pretrain.config.phases import check_positions_reached
from pretrain.config.run import RunRecipe
from pretrain.data.setup import Inputs, open_inputs
from pretrain.distributed import Cluster
from pretrain.train.checkpoint import Progress
from pretrain.train.deepspeed_config import read_deepspeed_config
from pretrain.train.preemption import BY_STOP_FILE
from pretrain.train.run_directory import RunDirectory
from pretrain.train.task import Prepared

Prepare = Callable[[Inputs, Cluster], Prepared]


def execute(recipe: RunRecipe, prepare: Prepare) -> None:
    """Run a recipe, or continue it from its newest checkpoint (all ranks).

    Args:
        recipe: what to do.
        prepare: makes the model and its task, once the inputs are verified.

    Raises:
        UserError: before any compute is spent when an input does not fit.
    """
    cluster = Cluster.join(recipe.run.world_size)
    run = RunDirectory(recipe.run.path)
    try:
        # By rank 0 alone: the others might list the folder while it writes there already.
        cluster.on_main(run.check_is_free)
        run.check_identity(recipe)
        if run.is_done:
            if cluster.is_main:
                print(f"{run.path} is done ({run.status()['step']} steps); nothing to do.")
            return
        # A run that an earlier version began goes on: publishing cuts what it leaves untrained.
        is_new = not run.is_begun
        if is_new and recipe.stated_positions is not None:
            _check_positions(recipe, recipe.stated_positions)
        inputs = open_inputs(recipe, run.plans, cluster)
        prepared = prepare(inputs, cluster)
        if is_new:
            _check_positions(recipe, prepared.model.shape.positions, prepared)
        _train(recipe, run, cluster, inputs, prepared)
    except UserError:
        if cluster.is_main:
            run.discard_unless_begun()
        raise
    finally:
        cluster.leave()


def _check_positions(recipe: RunRecipe, positions: int, prepared: Prepared | None = None) -> None:
    """Refuse position embeddings that neither the run nor what it starts from trains."""
    rows = recipe.train.longest_row
    inherited = prepared.inherited_positions if prepared else 0
    of_student = prepared is not None and prepared.teacher_facts is not None
    key = "student.positions" if of_student else "model.positions"
    check_positions_reached(positions, max(rows, inherited), key, rows)


def _train(
    recipe: RunRecipe, run: RunDirectory, cluster: Cluster, inputs: Inputs, prepared: Prepared
) -> None:
    # Imported here because DeepSpeed takes ten seconds: bad input is reported before that.
    from pretrain.train import setup
    from pretrain.train.loop import train

    s = setup.RunSetup(
        recipe=recipe,
        run=run,
        cluster=cluster,
        inputs=inputs,
        prepared=prepared,
        deepspeed=read_deepspeed_config(
            recipe, cluster.world_size, on_gpu=cluster.device.type == "cuda"
        ),
        # Before anything counts, compiles or partitions the parameters that are trained.
        kept_weights=prepared.model.detach_unused_pooler(),
    )
    facts = setup.collect_facts(s)
    setup.choose_model_backend(s)
    found = setup.choose_checkpoint(s, facts)
    memory = setup.forecast_memory(s)
    progress = Progress()
    try:
        with clear_disk_errors(run.path):
            engine, progress = setup.start_engine(s, found)
            with setup.open_log(s, progress) as log:
                training = setup.make_training(s, engine, facts, memory, log)
                stop_reason = train(training, progress, found.facts.validation if found else {})
                training.preemption.ignore_signals()
    except UserError as error:
        if cluster.is_main:
            _record_failure(run, progress, error)
        raise
    if cluster.is_main:
        _finish(run, progress, stop_reason, recipe)


def _record_failure(run: RunDirectory, progress: Progress, error: UserError) -> None:
    """Write the status `failed`.

    After any other exception, which may be the machine's fault, the status stays at "running", and
    a batch script that finds it so after the job may start the run again.
    """
    with contextlib.suppress(OSError):
        run.write_status("failed", progress, str(error))


def _finish(
    run: RunDirectory, progress: Progress, stop_reason: str | None, recipe: RunRecipe
) -> None:
    last = f"step_{progress.step:08d}"
    if stop_reason is None:
        at_end = progress.step == recipe.train.steps
        reason = "reached the last step" if at_end else "used up train.budget_minutes"
        run.write_status("done", progress, reason, last_checkpoint=last, requeue=False)
        print(f"Done: {run.path} at step {progress.step}, {progress.tokens_seen:,} real tokens.")
        return
    # A stop file is a person's decision: the batch script must not start the run again.
    requeue = stop_reason != BY_STOP_FILE
    run.write_status("preempted", progress, stop_reason, last_checkpoint=last, requeue=requeue)
    print(
        f"Stopped by {stop_reason} after step {progress.step}; the same command continues the run."
    )
