"""The folder of a run: its resolved recipe, its status, and the check that it stays one run."""

import shutil
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml

from data_prep.errors import UserError
from data_prep.manifest import write_json
from pretrain.checkpoint_manifest import is_committed
from pretrain.config.run import RunRecipe, TeacherRecipe, identity_of, with_current_keys
from pretrain.distributed import restart_count
from pretrain.train.checkpoint import Progress

State = Literal["running", "preempted", "done", "failed"]
# What a folder may hold before its run begins: what a run that was killed at once leaves, what the
# queueing system writes, a stop file, and what is hidden.
_HELD_BEFORE = ("checkpoints", "plans", "tokenizer", "config.yaml.tmp", "STOP", "hostfile.*",
                "*.out", "*.err", "*.log", ".*")  # fmt: skip
# A checkpoint of transformers, or an export: its owner may have meant to train it further.
_MODEL_FILES = {"config.json", "model.safetensors", "pytorch_model.bin"}


class RunDirectory:
    """`runs/NAME/`: config.yaml, status.json, metrics.jsonl, tensorboard/, checkpoints/, plans/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.plans = path / "plans"
        self._status = path / "status.json"
        self._plans_were_there = False

    def check_is_free(self) -> None:
        """Refuse a path that holds what no run of ours has left there (rank 0).

        Raises:
            UserError: naming the first things found, and `model.start` for a model.
        """
        self._plans_were_there = self.plans.exists()
        if self.path.is_dir():
            if self.is_begun:
                return
            names = sorted(path.name for path in self.path.iterdir())
            foreign = [n for n in names if not any(fnmatchcase(n, p) for p in _HELD_BEFORE)]
        elif self.path.exists():
            raise UserError(f"run.path {self.path} is a file: choose a folder for the run.")
        else:
            return
        if foreign:
            remedy = "choose a folder that is empty or does not exist"
            if _MODEL_FILES & set(foreign):
                remedy += f", and model.start={self.path} to continue pretraining from this model"
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise UserError(
                f"run.path {self.path} is not a run folder, but holds {shown}: {remedy}."
            )

    def check_identity(self, recipe: RunRecipe) -> None:
        """Refuse to continue a folder that another recipe started.

        Raises:
            UserError: naming the first key that differs, and both values.
        """
        stored = self._read_config()
        if not stored:
            return
        started = with_current_keys(stored.get("identity", {}))
        current = identity_of(recipe)
        # The start first: it decides what the shape's keys are where they are left out.
        for key in sorted(started.keys() | current.keys(), key=lambda k: (k != "model.start", k)):
            if started.get(key) != current.get(key):
                raise UserError(
                    f"The run folder {self.path} was started with {key} {started.get(key)!r}, not "
                    f"{current.get(key)!r}: choose another run.path, or restore the old value."
                )

    def begin(self, recipe: RunRecipe) -> None:
        """Create the folder, and write the resolved recipe and a copy of the tokenizer (rank 0)."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        # Publishing needs the tokenizer, also after the original was moved.
        _copy_files(recipe.tokenizer.path, self.path / "tokenizer")
        tree = {**recipe.model_dump(mode="json"), "identity": identity_of(recipe)}
        text = "# The resolved recipe of this run, and the keys that make up its identity.\n"
        text += yaml.safe_dump(tree, sort_keys=False)
        temporary = self.path / "config.yaml.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path / "config.yaml")

    @property
    def is_begun(self) -> bool:
        """Whether a run has begun here: it wrote its recipe, or has a checkpoint."""
        return "identity" in self._read_config() or any(
            is_committed(path) for path in self.checkpoints.glob("step_*")
        )

    @property
    def begun_positions(self) -> int | None:
        """Positions of the model that a run began to train here; None before it begins."""
        positions = self._read_config().get("identity", {}).get("model.positions")
        return positions if isinstance(positions, int) else None

    def discard_unless_begun(self) -> None:
        """Remove the epoch indices that were made for a run that was then refused (rank 0)."""
        if not self.is_begun and self.plans.is_dir() and not self._plans_were_there:
            shutil.rmtree(self.plans)
            # The folder is ours only if nothing else is in it.
            if not any(self.path.iterdir()):
                self.path.rmdir()

    @property
    def is_done(self) -> bool:
        """Whether the run has reached its last step."""
        return bool(self.status().get("state") == "done")

    def status(self) -> dict[str, Any]:
        """Return the last written status, empty before the first."""
        if not self._status.is_file():
            return {}
        loaded = yaml.safe_load(self._status.read_text(encoding="utf-8"))
        return dict(loaded)

    def write_status(self, state: State, progress: Progress, reason: str, **facts: Any) -> None:
        """Write `status.json` (rank 0): a batch script reads it after the job ends."""
        write_json(
            self._status,
            {
                "state": state,
                "step": progress.step,
                "samples_seen": progress.samples_seen,
                "reason": reason,
                "time": time.time(),
                "slurm_restart_count": restart_count(),
                **facts,
            },
        )

    def _read_config(self) -> dict[str, Any]:
        """Return the stored recipe, empty where there is none or it is that of another program."""
        path = self.path / "config.yaml"
        if not path.is_file():
            return {}
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            return {}
        return content if isinstance(content, dict) else {}


def with_positions_of_run(recipe: TeacherRecipe) -> TeacherRecipe:
    """Return a recipe that leaves its positions out with those that its run began with, if any.

    Earlier versions began runs with 512 where the key was left out.
    """
    if recipe.model.positions is not None or recipe.model.start is not None:
        return recipe
    begun = RunDirectory(recipe.run.path).begun_positions
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"positions": begun})})


def _copy_files(source: Path, target: Path) -> None:
    """Copy a folder's files under the umask, where `shutil.copytree` would copy their modes."""
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
