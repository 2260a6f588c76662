"""Teacher caches of a student's recipe: which rows they need, writing them and opening them.

Rows of different lengths are different rows, so a run with phases has a cache for each length:

    CACHE/rows_128/    CACHE/rows_512/
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import AliasChoices, Field

from data_prep.errors import UserError
from data_prep.samples.pair_format import check_pair_format
from pretrain.config.phases import phases_of
from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from pretrain.data.dummy_batch import dummy_batch
from pretrain.data.setup import Inputs, open_inputs
from pretrain.data.trained_positions import TrainedPositions
from pretrain.distil.config import StudentRecipe
from pretrain.distil.logit_losses import mlm_head
from pretrain.distil.loss_config import SoftTargets
from pretrain.distil.student import check_positions, check_vocabulary
from pretrain.distil.teacher import Teacher, locate_teachers
from pretrain.distil.teacher_cache.key import TeacherCacheOptions, cache_key
from pretrain.distil.teacher_cache.reader import TeacherCacheReader
from pretrain.distil.teacher_cache.writer import ComputeLogits, TeacherCacheWriter
from pretrain.distributed import Cluster
from pretrain.kernels.soft_cross_entropy import logits_of
from pretrain.model.backend import choose_backend
from pretrain.model.captured_states import NO_CAPTURE
from pretrain.model.loading import LocatedModel, load_encoder

_CHECKED_TOKENS = 256  # masked tokens of the batch that checks the teacher's outputs


class TeacherCacheRecipe(StudentRecipe):
    """`launch/write_teacher_cache.py`: a student's recipe, and how targets are compressed."""

    teacher_cache: TeacherCacheOptions = Field(
        TeacherCacheOptions(),
        validation_alias=AliasChoices("teacher_cache", "signal"),  # `signal` in earlier recipes
    )


def open_teacher_caches(
    recipe: StudentRecipe, inputs: Inputs, teacher_sha256: str, cluster: Cluster
) -> Mapping[int, TeacherCacheReader]:
    """Open the caches of a student's run, by row length (all ranks).

    Raises:
        UserError: when one is missing, made for anything else or damaged, or when the recipe needs
            soft targets that a cache cannot hold.
    """
    assert recipe.teacher.cache is not None
    temperature = cache_temperature(recipe)
    readers: dict[int, TeacherCacheReader] = {}
    for length, rows in rows_needed(recipe).items():
        folder = cache_folder(recipe.teacher.cache, length)
        key = cache_key(inputs.sources[length], inputs.corpus, teacher_sha256, temperature)
        contents = recipe.corpus.verify == "contents"
        # Rank 0 compares all bytes once; an error there is raised on all ranks.
        cluster.on_main(partial(_verify, folder, key, rows, contents))
        readers[length] = TeacherCacheReader.open(folder, key, rows, contents=False)
    if len({reader.options.kind for reader in readers.values()}) > 1:
        raise UserError(
            f"The teacher cache {recipe.teacher.cache} is sampled for rows of one length and "
            "top_k for another: write both with the same teacher_cache.kind."
        )
    return readers


def write_teacher_caches(recipe: TeacherCacheRecipe, cluster: Cluster) -> None:
    """Compute and store the soft targets of all rows of a student's run (all ranks).

    Raises:
        UserError: when recipe, corpus, teacher and folder do not match; the folder is then left as
            it was found.
    """
    if recipe.teacher.path is None or recipe.teacher.cache is None:
        raise UserError(
            "Give teacher.path, the teacher to cache, and teacher.cache, the folder to write."
        )
    temperature = cache_temperature(recipe)
    with _restored_when_refused(recipe.teacher.cache, cluster):
        inputs = open_inputs(recipe, recipe.teacher.cache / "plans", cluster)
        located = _locate(recipe, recipe.teacher.path, inputs, cluster)
        writers = {}
        for length, rows in rows_needed(recipe).items():
            source = inputs.sources[length]
            folder = cache_folder(recipe.teacher.cache, length)
            key = cache_key(source, inputs.corpus, located.sha256, temperature)
            writers[length] = TeacherCacheWriter(folder, key, recipe.teacher_cache, source, rows)
            cluster.on_main(writers[length].begin)
        compute_logits = _open_teacher(recipe, located, cluster)
    for length, writer in writers.items():
        _write(writer, inputs.sources[length], compute_logits, recipe, cluster)


@contextmanager
def _restored_when_refused(folder: Path, cluster: Cluster) -> Iterator[None]:
    """Remove what a refusal leaves in a folder, and the folder itself if it is new (all ranks).

    What was there before stays, such as the shards of a pass that was interrupted.
    """
    before = set(folder.rglob("*"))
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except UserError:
        if cluster.is_main:
            new = (path for path in folder.rglob("*") if path not in before)
            for path in [*sorted(new, reverse=True), *absent]:  # what a folder holds comes first
                with suppress(OSError):  # it was never made, or holds files of another program
                    path.rmdir() if path.is_dir() else path.unlink()
        raise


def cache_temperature(recipe: StudentRecipe) -> float:
    """Return the temperature of a recipe's soft targets.

    Raises:
        UserError: when there are none, or any other than forward divergences at masked tokens, at
            one constant temperature.
    """
    targets = [o for s in recipe.all_stages for o in s.objectives if isinstance(o, SoftTargets)]
    if not targets:
        raise UserError(
            "teacher.cache holds soft targets, but no objective is soft_targets: leave it out."
        )
    for objective in targets:
        if objective.divergence != "forward" or objective.at != "masked":
            raise UserError(
                "teacher.cache holds soft targets at masked tokens for the forward divergence, "
                f"but soft_targets has divergence {objective.divergence} at {objective.at} tokens: "
                "change the objective, or leave teacher.cache out."
            )
    temperatures = {o.temperature for o in targets}
    if len(temperatures) > 1 or any(o.temperature_schedule for o in targets):
        raise UserError(
            "teacher.cache holds soft targets at one temperature, but that of soft_targets changes "
            "during the run: keep it constant, or leave teacher.cache out."
        )
    return temperatures.pop()


def rows_needed(recipe: StudentRecipe) -> dict[int, int]:
    """Return the number of rows that a run reads, over all epochs, by row length."""
    needed: dict[int, int] = {}
    for phase in phases_of(recipe.train):
        end = phase.row_of(phase.first_step + phase.steps)
        needed[phase.row_tokens] = max(needed.get(phase.row_tokens, 0), end)
    return needed


def cache_folder(path: Path, row_tokens: int) -> Path:
    """Return the folder of the rows of one length."""
    return path / f"rows_{row_tokens}"


def _verify(folder: Path, key: dict[str, Any], rows: int, contents: bool) -> None:
    TeacherCacheReader.open(folder, key, rows, contents=contents)


def _locate(
    recipe: TeacherCacheRecipe, path: Path, inputs: Inputs, cluster: Cluster
) -> LocatedModel:
    """Locate the teacher and check that it matches recipe and corpus (all ranks)."""
    if recipe.samples.pairs != "none":
        check_pair_format(inputs.tokenizer, "set samples.pairs=none")
    (located,) = cluster.on_main(lambda: locate_teachers([path], inputs.tokenizer))
    needed = TrainedPositions.of(phases_of(recipe.train), inputs.sources).at_end
    check_positions(located, recipe.train.longest_row, needed)
    check_vocabulary(located.shape, inputs.tokenizer)
    if not located.has_mlm_head:
        raise UserError(
            f"The teacher {path} has no MLM head, so it has no soft targets: choose a teacher with "
            "one."
        )
    return located


def _open_teacher(
    recipe: TeacherCacheRecipe, located: LocatedModel, cluster: Cluster
) -> ComputeLogits:
    """Return the function that computes the teacher's logits at masked tokens (all ranks)."""
    model, device = cluster.on_all(lambda: load_encoder(located)), cluster.device
    backend = choose_backend(recipe.kernels, recipe.train, model.shape, device)
    sharded = recipe.teacher.sharded and cluster.world_size > 1
    name = f"The teacher {located.folder}"
    teacher = Teacher(model, device, recipe.train.precision, backend, name=name, sharded=sharded)
    phase = phases_of(recipe.train)[0]
    batch = dummy_batch(model.shape.vocab_size, phase.micro_rows, phase.row_tokens, _CHECKED_TOKENS)
    teacher.check(batch.to(device), NO_CAPTURE, needs_logits=True)

    def compute_logits(batch: Batch) -> torch.Tensor:
        outputs = teacher(batch.to(device))
        return logits_of(mlm_head(outputs, outputs.masked_MD))

    return compute_logits


def _write(
    writer: TeacherCacheWriter,
    source: BatchSource,
    compute_logits: ComputeLogits,
    recipe: TeacherCacheRecipe,
    cluster: Cluster,
) -> None:
    """Write the cache of one row length (all ranks)."""
    micro_rows = recipe.train.micro_rows
    extra = _extra_forward_passes(writer, micro_rows, cluster) if recipe.teacher.sharded else 0
    writer.write(compute_logits, micro_rows, cluster.rank, cluster.world_size)
    # A sharded teacher gathers its layers from all ranks, so those with fewer batches must run as
    # many forward passes as the others, or the collectives would hang.
    for _ in range(extra):
        compute_logits(source.rows(np.arange(1), micro_rows))
    # The manifest must not be written while another rank's shards are still missing.
    cluster.barrier()
    cluster.on_main(writer.finish)


def _extra_forward_passes(writer: TeacherCacheWriter, micro_rows: int, cluster: Cluster) -> int:
    """Return how many forward passes this rank has less than the maximum (all ranks)."""
    own = writer.count_forward_passes(micro_rows, cluster.rank, cluster.world_size)
    rank_counts = [own if r == cluster.rank else 0 for r in range(cluster.world_size)]
    return max(cluster.sum(rank_counts)) - own
