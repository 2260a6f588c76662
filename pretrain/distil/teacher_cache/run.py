"""A teacher's signal and the recipe of a student: what must be stored for it, and taken from it.

Rows of different lengths are different rows, so a run with phases has a cache for each length:

    SIGNAL/rows_128/    SIGNAL/rows_512/
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.errors import UserError
from pretrain.config.phases import phases_of
from pretrain.data.batch import Batch
from pretrain.data.setup import Inputs, open_inputs
from pretrain.distil.config import StudentRecipe
from pretrain.distil.logit_losses import head_of
from pretrain.distil.loss_config import SoftTargets
from pretrain.distil.student import check_positions, check_vocabulary
from pretrain.distil.teacher import Teacher, locate_teachers
from pretrain.distil.teacher_cache.key import TeacherCacheOptions, cache_key
from pretrain.distil.teacher_cache.reader import TeacherCacheReader
from pretrain.distil.teacher_cache.writer import TeacherCacheWriter
from pretrain.distributed import Cluster
from pretrain.kernels.soft_cross_entropy import logits_of
from pretrain.model.backend import choose_backend
from pretrain.model.loading import load_located


class TeacherCacheRecipe(StudentRecipe):
    """`launch/write_teacher_cache.py`: the recipe of a student, and how targets are shortened."""

    signal: TeacherCacheOptions = TeacherCacheOptions()


def open_teacher_caches(
    recipe: StudentRecipe, inputs: Inputs, teacher_sha256: str, cluster: Cluster
) -> Mapping[int, TeacherCacheReader]:
    """Open what a student's run needs, by the length of rows (all ranks).

    Raises:
        UserError: when it is not there, was made for anything else or is damaged, or when the
            recipe asks for what is not stored.
    """
    assert recipe.teacher.signal is not None
    temperature = stored_temperature(recipe)
    readers: dict[int, TeacherCacheReader] = {}
    for length, rows in rows_needed(recipe).items():
        folder = folder_of(recipe.teacher.signal, length)
        key = cache_key(inputs.sources[length], inputs.corpus, teacher_sha256, temperature)
        contents = recipe.corpus.verify == "contents"
        # Bytes are compared once, and all ranks hear of it.
        cluster.on_main(partial(_verify, folder, key, rows, contents))
        readers[length] = TeacherCacheReader.open(folder, key, rows, contents=False)
    if len({reader.options.kind for reader in readers.values()}) > 1:
        raise UserError(
            f"The teacher's signal {recipe.teacher.signal} is sampled for rows of one length and "
            "top_k for another: write both with the same signal.kind."
        )
    return readers


def write_teacher_caches(recipe: TeacherCacheRecipe, cluster: Cluster) -> None:
    """Ask the teacher about all rows that a student's run will see, and store it (all ranks).

    Raises:
        UserError: for anything that does not fit, before the teacher is asked.
    """
    if recipe.teacher.path is None or recipe.teacher.signal is None:
        raise UserError("Give teacher.path, who is asked, and teacher.signal, the folder to write.")
    temperature = stored_temperature(recipe)
    inputs = open_inputs(recipe, recipe.teacher.signal / "plans", cluster)
    paths, tokenizer = [recipe.teacher.path], inputs.tokenizer.fingerprint
    (located,) = cluster.on_main(lambda: locate_teachers(paths, tokenizer))
    check_positions(located.shape, recipe.train.longest_row)
    check_vocabulary(located.shape, inputs.tokenizer)
    if not located.has_mlm_head:
        raise UserError(
            f"The teacher {recipe.teacher.path} has no masked-word head, so it has no soft "
            "targets: choose a teacher with one."
        )
    model, device = load_located(located).model, cluster.device
    backend = choose_backend(recipe.kernels, recipe.train, model.shape, device)
    sharded = recipe.teacher.sharded and cluster.world_size > 1
    teacher = Teacher(model, device, recipe.train.precision, backend, sharded=sharded)

    def teach(batch: Batch) -> torch.Tensor:
        outputs = teacher(batch.to(device))
        return logits_of(head_of(outputs, outputs.masked_MD))

    for length, rows in rows_needed(recipe).items():
        source = inputs.sources[length]
        writer = TeacherCacheWriter(
            folder_of(recipe.teacher.signal, length),
            cache_key(source, inputs.corpus, located.sha256, temperature),
            recipe.signal,
            source,
            rows,
        )
        cluster.on_main(writer.begin)
        idle = _fewer_questions(writer, recipe.train.micro_rows, cluster) if sharded else 0
        writer.write(teach, recipe.train.micro_rows, cluster.rank, cluster.world_size)
        # The layers of a sharded teacher are gathered from all ranks: those that have less to
        # write must ask on, or the others would wait for them for ever.
        for _ in range(idle):
            teach(source.rows(np.arange(1), recipe.train.micro_rows))
        # The manifest must not be written while another rank's shards are still missing.
        cluster.barrier()
        cluster.on_main(writer.finish)


def _fewer_questions(writer: TeacherCacheWriter, micro_rows: int, cluster: Cluster) -> int:
    """Return how many questions this rank has less than the one with the most (all ranks)."""
    own = writer.questions(micro_rows, cluster.rank, cluster.world_size)
    asked = cluster.sum([own if r == cluster.rank else 0 for r in range(cluster.world_size)])
    return max(asked) - own


def _verify(folder: Path, key: dict[str, Any], rows: int, contents: bool) -> None:
    TeacherCacheReader.open(folder, key, rows, contents=contents)


def stored_temperature(recipe: StudentRecipe) -> float:
    """Return the one temperature of a recipe's soft targets.

    Raises:
        UserError: when there are none, or any that a store of forward divergences at masked
            tokens, at a single temperature, does not hold.
    """
    asked = [o for s in recipe.all_stages for o in s.objectives if isinstance(o, SoftTargets)]
    if not asked:
        raise UserError(
            "teacher.signal holds soft targets, but no objective is soft_targets: leave it out."
        )
    for objective in asked:
        if objective.divergence != "forward" or objective.at != "masked":
            raise UserError(
                "teacher.signal holds soft targets at masked tokens for the forward divergence, "
                f"but soft_targets asks for {objective.divergence} at {objective.at}: change "
                "the objective, or ask the teacher online."
            )
    temperatures = {o.temperature for o in asked}
    if len(temperatures) > 1 or any(o.temperature_schedule for o in asked):
        raise UserError(
            "teacher.signal is written at one temperature, but that of soft_targets changes during "
            "the run: keep it, or ask the teacher online."
        )
    return temperatures.pop()


def rows_needed(recipe: StudentRecipe) -> dict[int, int]:
    """Return how many rows of each length a run sees, over all of its epochs."""
    needed: dict[int, int] = {}
    for phase in phases_of(recipe.train):
        end = phase.row_of(phase.first_step + phase.steps)
        needed[phase.row_tokens] = max(needed.get(phase.row_tokens, 0), end)
    return needed


def folder_of(signal: Path, row_tokens: int) -> Path:
    """Return the folder of the rows of one length."""
    return signal / f"rows_{row_tokens}"
