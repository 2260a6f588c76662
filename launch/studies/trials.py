"""A trial: one method with one seed, from its recipe to its published folder.

Each trial is a command that could be typed by hand. One that is done is not done again, so a study
that was stopped goes on, and its commands can as well be jobs of a cluster.
"""

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.config.loader import find_shipped, load_recipe
from data_prep.errors import UserError
from launch.studies.options import MethodOptions, StudyRecipe
from pretrain.distil.config import StudentRecipe

_SCRIPT = Path(__file__).parents[1] / "distill_student.py"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A method and a seed, and where its run and its published folder are."""

    method: MethodOptions
    seed: int
    run: Path
    export: Path

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"{self.method.name}-{self.seed}"


def trials_of(study: StudyRecipe) -> Iterator[Trial]:
    """Yield all trials, seed by seed."""
    for seed in study.seeds:
        for method in study.methods:
            name = f"{method.name}-{seed}"
            yield Trial(
                method=method,
                seed=seed,
                run=study.path / "runs" / name,
                export=study.path / "exports" / name,
            )


def recipe_of(study: StudyRecipe, trial: Trial) -> StudentRecipe:
    """Return the student's recipe of a trial.

    Raises:
        UserError: for a key that the recipe does not have, or a value that does not fit.
    """
    return load_recipe(StudentRecipe, study.recipe, overrides_of(study, trial))


def overrides_of(study: StudyRecipe, trial: Trial) -> list[str]:
    """Return a trial's keys as they are typed after a recipe."""
    keys: dict[str, Any] = {
        **study.keys,
        **trial.method.keys,
        "teacher.path": str(study.teacher),
        "run.path": str(trial.run),
        "train.seed": trial.seed,
    }
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


def command_of(study: StudyRecipe, trial: Trial) -> list[str]:
    """Return the command that trains a trial."""
    recipe = find_shipped(study.recipe, "launch", "recipes")
    return [*study.launcher, str(_SCRIPT), "--config", str(recipe), *overrides_of(study, trial)]


def shown(command: list[str]) -> str:
    """Return a command as it is typed."""
    return shlex.join(command)


def train_trial(study: StudyRecipe, trial: Trial) -> None:
    """Train and publish a trial, unless that is done.

    Raises:
        UserError: when its folder holds a run of another recipe, the launcher cannot be started,
            or the run ends before its last step; it has said why.
    """
    from pretrain.export.huggingface import publish
    from pretrain.train.run_directory import RunDirectory

    run = RunDirectory(trial.run)
    # A run that is done would otherwise stand in the table for what the recipe says now.
    run.check_identity(recipe_of(study, trial))
    if not run.is_done:
        code = _run(_with_free_port(command_of(study, trial)))
        # The launcher exits 0 when it was stopped from outside, so the state of the run decides.
        if code or not run.is_done:
            raise UserError(
                f"The trial {trial.name} ended with code {code} before its last step: see above, "
                "and run the study again; it goes on from there."
            )
    publish(trial.run, trial.export)


def _run(command: list[str]) -> int:
    print(f"$ {shown(command)}", flush=True)
    try:
        return subprocess.run(command).returncode
    except OSError as error:
        raise UserError(
            f"The launcher {command[0]} cannot be started ({error}): correct launcher."
        ) from None


def _with_free_port(command: list[str]) -> list[str]:
    """Give DeepSpeed's launcher a free port: runs with the same one cannot be side by side."""
    if Path(command[0]).name != "deepspeed" or "--master_port" in command:
        return command
    with socket.socket() as listener:
        listener.bind(("", 0))
        port = str(listener.getsockname()[1])
    # The launcher of this environment, which need not be active.
    beside = Path(sys.executable).parent / command[0]
    launcher = str(beside) if beside.is_file() else command[0]
    return [launcher, "--master_port", port, *command[1:]]
