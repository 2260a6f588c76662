"""What the loop needs, made in order: facts, backend, checkpoint, memory forecast, engine, log.

Importing this file imports DeepSpeed, which takes ten seconds; `run.py` does it once the inputs
are verified.
"""

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from data_prep.disk import clear_disk_errors
from pretrain.checkpoint_manifest import FoundCheckpoint, find_newest
from pretrain.config.phases import phases_of
from pretrain.config.run import RunRecipe, identity_of
from pretrain.data.setup import Inputs
from pretrain.data.trained_positions import TrainedPositions
from pretrain.distributed import Cluster
from pretrain.model.backend import choose_backend, describe_backend
from pretrain.model.compilation import CompilationCounter, apply_backend
from pretrain.monitoring.activation_memory import Activations
from pretrain.monitoring.flops import StepFlops
from pretrain.monitoring.logger import RunLog
from pretrain.monitoring.memory_estimate import MemoryForecast, forecast
from pretrain.run_facts import RunFacts
from pretrain.train.checkpoint import (
    Progress,
    adapt_to_ranks,
    check_continues,
    load_checkpoint,
    needs_conversion,
    remove_leftovers,
)
from pretrain.train.deepspeed_engine import Engine
from pretrain.train.evaluation import ValidationSet
from pretrain.train.loop import Training
from pretrain.train.preemption import PreemptionMonitor
from pretrain.train.run_directory import RunDirectory
from pretrain.train.task import Prepared


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """A verified run on this rank, before its engine exists."""

    recipe: RunRecipe
    run: RunDirectory
    cluster: Cluster
    inputs: Inputs
    prepared: Prepared
    deepspeed: dict[str, Any]  # complete configuration, see `deepspeed_config.py`
    kept_weights: dict[str, torch.Tensor]  # that no loss trains, see `Bert.detach_unused_pooler`

    @property
    def zero_stage(self) -> int:
        """ZeRO stage of the DeepSpeed configuration."""
        return int(self.deepspeed["zero_optimization"]["stage"])


def collect_facts(s: RunSetup) -> RunFacts:
    """Return what the manifest of every checkpoint states about the run."""
    corpus, model = s.inputs.corpus, s.prepared.model
    kept = sum(tensor.numel() for tensor in s.kept_weights.values())
    return RunFacts(
        shape=model.shape.to_dict(),
        parameters=model.count_parameters(s.prepared.has_mlm_head) + kept,
        corpus=corpus.fingerprint,
        corpus_documents=corpus.num_documents,
        corpus_tokens=corpus.num_tokens,
        languages=corpus.languages,
        tokenizer=s.inputs.tokenizer.fingerprint,
        identity=identity_of(s.recipe),
        device=_device_name(s.cluster.device),
        versions={name: version(name) for name in ("torch", "deepspeed", "transformers")},
        started=time.strftime("%Y-%m-%d"),
        zero_stage=s.zero_stage,
        has_mlm_head=s.prepared.has_mlm_head,
        teacher=s.prepared.teacher_facts,
        start=s.prepared.start_facts,
    )


def choose_model_backend(s: RunSetup) -> None:
    """Choose how the model is computed, and print the choice on rank 0."""
    recipe, model = s.recipe, s.prepared.model
    backend = choose_backend(
        recipe.kernels, recipe.train, model.shape, s.cluster.device, s.zero_stage
    )
    apply_backend(model, backend)
    if s.cluster.is_main:
        print(describe_backend(recipe.kernels, backend, s.cluster.device))


def choose_checkpoint(s: RunSetup, facts: RunFacts) -> FoundCheckpoint | None:
    """Open the run folder and return the checkpoint to continue from, if there is one."""
    run = s.run

    def open_folder() -> FoundCheckpoint | None:
        with clear_disk_errors(run.path):
            run.begin(s.recipe)
            remove_leftovers(run.checkpoints)
            found = find_newest(run.checkpoints)
            step = found.facts.step if found else 0
            run.write_status("running", Progress(step=step), "started")
        if found is not None:
            check_continues(found, facts, s.cluster.world_size)
            print(f"Continuing from {found.path}.")
        return found

    return s.cluster.on_main(open_folder)


def forecast_memory(s: RunSetup) -> MemoryForecast:
    """Return the memory that a rank will need, and print it on rank 0."""
    recipe, model, teacher = s.recipe, s.prepared.model, s.prepared.teacher_facts
    kept = teacher.parameters_kept if teacher else 0
    parts = forecast(recipe, s.deepspeed, model, s.cluster.world_size, kept)
    parts += s.prepared.task.memory_parts(Activations.of(recipe, model))
    memory = MemoryForecast(parts, s.cluster.device)
    if s.cluster.is_main:
        print(memory.table())
    return memory


def start_engine(s: RunSetup, found: FoundCheckpoint | None) -> tuple[Engine, Progress]:
    """Return the engine, with the state of a checkpoint if one is given, and its progress."""
    model = s.prepared.model
    engine = Engine(
        model.to(s.cluster.device),
        s.recipe,
        s.deepspeed,
        universal=bool(found and needs_conversion(found, s.cluster)),
        trained=s.prepared.task.trained(model),
    )
    if found is None:
        return engine, Progress()
    return engine, load_checkpoint(engine, adapt_to_ranks(found, s.cluster))


@contextmanager
def open_log(s: RunSetup, progress: Progress) -> Iterator[RunLog | None]:
    """Open the log on rank 0, None on the others, and close it at the end."""
    log = None
    if s.cluster.is_main:
        log = RunLog(s.run.path, progress.step, s.recipe.train.steps)
    try:
        yield log
    finally:
        if log is not None:
            log.close()


def make_training(
    s: RunSetup, engine: Engine, facts: RunFacts, memory: MemoryForecast, log: RunLog | None
) -> Training:
    """Put together what the loop reads; from here on signals set a flag."""
    recipe, model = s.recipe, s.prepared.model
    return Training(
        recipe=recipe,
        run=s.run,
        cluster=s.cluster,
        engine=engine,
        task=s.prepared.task,
        layers=model.shape.layers,
        compilations=CompilationCounter() if model.backend.compiled else None,
        flops=StepFlops(trained=model.shape, directions=2 if recipe.mask.bidirectional else 1),
        memory=memory,
        loader=s.inputs.loader,
        validation=_validation_set(s),
        preemption=PreemptionMonitor(s.run.path, recipe.train.max_minutes),
        facts=facts,
        positions=_trained_positions(s),
        kept_weights=s.kept_weights,
        log=log,
    )


def _trained_positions(s: RunSetup) -> TrainedPositions:
    """Return the positions that are trained, after a warning on rank 0 where some are not."""
    trained = TrainedPositions.of(
        phases_of(s.recipe.train), s.inputs.sources, s.prepared.inherited_positions
    )
    positions = s.prepared.model.shape.positions
    if s.cluster.is_main and trained.at_end < positions:
        print(
            f"warning: no sample reaches the last {positions - trained.at_end} of {positions} "
            f"positions: publish with --positions {trained.at_end}.",
            file=sys.stderr,
        )
    return trained


def _validation_set(s: RunSetup) -> ValidationSet:
    micro_rows = phases_of(s.recipe.train)[-1].micro_rows
    return ValidationSet(s.inputs.validation, s.recipe.validation.rows, micro_rows, s.cluster)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"
