"""Checkpoints: written atomically, loaded, converted for another number of ranks.

A checkpoint is written under a temporary name, described by a manifest and only then renamed, so
that a run killed at any moment leaves the previous one untouched:

    checkpoints/step_00001000/    DeepSpeed's files, one or more a rank
                                  model.safetensors     all weights in fp32
                                  manifest.json         written last: files, sizes, sha256, facts

DeepSpeed's own files are pickles; they are only ever read when the manifest verifies.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from data_prep.manifest import MANIFEST, write_manifest
from pretrain.checkpoint_manifest import FoundCheckpoint, is_committed
from pretrain.distributed import Cluster
from pretrain.run_facts import RunFacts, StartFacts, TeacherFacts
from pretrain.weights_file import write_weights

if TYPE_CHECKING:  # DeepSpeed takes ten seconds to import; reading a checkpoint needs none of it
    from pretrain.train.deepspeed_engine import Engine

_WRITING = ".writing"
_UNIVERSAL = ".universal"


@dataclass(kw_only=True)
class Progress:
    """How far a run has come: all that a resume needs beside DeepSpeed's state."""

    step: int = 0  # optimizer steps done
    samples_seen: int = 0  # sentence pairs
    tokens_seen: int = 0  # real tokens, padding not counted
    trained_ms: int = 0  # time in training before the last step, by rank 0's clock


def save_checkpoint(
    folder: Path,
    engine: "Engine",
    progress: Progress,
    facts: RunFacts,
    cluster: Cluster,
    keep: int,
    kept_weights: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Path:
    """Write and commit a checkpoint, then remove all but the newest `keep` (all ranks).

    `kept_weights` are stored with the trained ones, and are no part of DeepSpeed's state.

    Raises:
        UserError: when the disk is full or a weight is not finite; the previous checkpoints
            are untouched.
    """
    final = folder / f"step_{progress.step:08d}"
    writing = folder / (final.name + _WRITING)
    if cluster.is_main:
        shutil.rmtree(writing, ignore_errors=True)
    # Without this barrier, rank 0 could remove a fast rank's file with those of a killed save.
    cluster.barrier()
    with _removed_on_refusal(writing), clear_disk_errors(folder):
        engine.save(folder, writing.name, asdict(progress))
        weights = engine.gather_fp32_weights()
        if cluster.is_main:
            _refuse_unusable(weights, progress.step)
            write_weights({**weights, **kept_weights}, writing / "model.safetensors")
        # The manifest must not be written while other ranks are still writing.
        cluster.barrier()
        if cluster.is_main:
            names = [str(p.relative_to(writing)) for p in writing.rglob("*") if p.is_file()]
            stated = replace(facts, **asdict(progress), world_size=cluster.world_size)
            write_manifest(writing, stated.to_dict(), names)
            shutil.rmtree(final, ignore_errors=True)
            writing.rename(final)
            _remove_others(folder, progress.step, keep)
    # No rank may continue, and perhaps end the job, before the checkpoint is committed.
    cluster.barrier()
    return final


def load_checkpoint(engine: "Engine", found: FoundCheckpoint) -> Progress:
    """Load weights, optimizer and progress into an engine (all ranks)."""
    state = engine.load(found.path.parent, found.path.name)
    return Progress(**{name: state[name] for name in asdict(Progress())})


def check_continues(found: FoundCheckpoint, facts: RunFacts, world_size: int) -> None:
    """Refuse to continue a checkpoint with what would make it another run.

    Args:
        found: the checkpoint.
        facts: of the run as it is now.
        world_size: number of ranks now.

    Raises:
        UserError: for another corpus, teacher or start, a ZeRO stage that cannot read its state, or
            another number of ranks under ZeRO-3 or with Muon.
    """
    _check_same_inputs(found, facts)
    was, now = found.facts.zero_stage, facts.zero_stage
    # Stages 1 and 2 have the same state, but in bf16, where DeepSpeed uses BF16_Optimizer for
    # stage 1; the other stages partition it in ways that do not convert.
    bf16 = found.facts.identity.get("train.precision") == "bf16"
    if was != now and ({was, now} != {1, 2} or bf16):
        raise UserError(
            f"The checkpoint {found.path} was written under ZeRO-{was}, which ZeRO-{now} cannot "
            "load: restore deepspeed.config, or choose another run.path."
        )
    written_by = found.facts.world_size
    other_ranks = written_by != world_size
    # Its converter supports the state of Adam alone (deepspeed/checkpoint/ds_to_universal.py).
    if now > 0 and other_ranks and _optimizer_of(found) == "muon":
        raise UserError(
            f"The checkpoint {found.path} was written by {written_by} ranks, and DeepSpeed "
            f"cannot divide the momentum of optim.name muon by {world_size}: start as many again."
        )
    # Measured: DeepSpeed 0.19.8 converts it, but the gradient norm is off by 2e-4 two steps later.
    if now == 3 and other_ranks:
        raise UserError(
            f"The checkpoint {found.path} was written by {written_by} ranks under ZeRO-3, "
            f"and {world_size} ranks cannot continue it exactly: start as many again, or "
            "train under ZeRO-2, where the number may change."
        )


def _check_same_inputs(found: FoundCheckpoint, facts: RunFacts) -> None:
    def weights(other: TeacherFacts | StartFacts | None) -> str | None:
        return other.weights if other else None

    for name, was, now in (
        ("the corpus", found.facts.corpus, facts.corpus),
        ("the teacher", weights(found.facts.teacher), weights(facts.teacher)),
        ("the start", weights(found.facts.start), weights(facts.start)),
    ):
        if was != now:
            raise UserError(
                f"The checkpoint {found.path} was trained with {name} {was}, but the recipe now "
                f"leads to {now}: restore it, or choose another run.path."
            )


def _optimizer_of(found: FoundCheckpoint) -> str:
    return str(found.facts.identity.get("optim.name", "adamw"))


def needs_conversion(found: FoundCheckpoint, cluster: Cluster) -> bool:
    """Return whether optimizer state is partitioned for another number of ranks."""
    return found.facts.world_size != cluster.world_size and found.facts.zero_stage > 0


def adapt_to_ranks(found: FoundCheckpoint, cluster: Cluster) -> FoundCheckpoint:
    """Return a checkpoint for this number of ranks, converting it if need be (all ranks)."""
    if not needs_conversion(found, cluster):
        return found
    target = found.path.with_name(found.path.name + _UNIVERSAL)

    def convert() -> None:
        from pretrain.train.deepspeed_library import convert_to_universal

        print(
            f"Converting {found.path} from {found.facts.world_size} to {cluster.world_size} ranks."
        )
        shutil.rmtree(target, ignore_errors=True)
        convert_to_universal(found.path, target)

    cluster.on_main(convert)
    return FoundCheckpoint(target, found.facts, found.files)


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete checkpoints and past conversions (rank 0)."""
    for ending in (_WRITING, _UNIVERSAL):
        for path in folder.glob(f"step_*{ending}"):
            shutil.rmtree(path, ignore_errors=True)


def _remove_others(folder: Path, step: int, keep: int) -> None:
    """Remove all but the newest `keep` up to `step`; later ones were damaged and passed over."""
    committed = [path for path in sorted(folder.glob("step_*")) if is_committed(path)]
    valid = [path for path in committed if int(path.name.removeprefix("step_")) <= step]
    for path in set(committed) - set(valid[-keep:]):
        # Without its manifest it is no checkpoint any more, should the removal be interrupted.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _removed_on_refusal(writing: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        shutil.rmtree(writing, ignore_errors=True)
        raise


def _refuse_unusable(weights: dict[str, torch.Tensor], step: int) -> None:
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"After step {step} the weights {name} are not finite, so they were not saved: "
                "choose another run.path and a lower optim.lr."
            )
