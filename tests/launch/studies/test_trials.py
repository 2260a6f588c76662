"""Trials are commands that a person could type; one that is done is not done again."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.errors import UserError
from launch.studies.options import StudyRecipe
from launch.studies.trials import (
    Trial,
    command_of,
    recipe_of,
    shown,
    train_trial,
    trials_of,
)
from pretrain.config.run import identity_of

METHODS: list[dict[str, Any]] = [
    {"name": "none", "what": "no teacher", "keys": {"objectives": [{"kind": "hard_mlm"}]}},
    {"name": "soft", "what": "soft targets", "keys": {"student.init": "lower"}},
]


@pytest.fixture
def study(tmp_path: Path) -> StudyRecipe:
    """Return a study of two methods and two seeds, with the recipe of its student."""
    tree = {
        "run": {"path": "replaced"},
        "corpus": {"path": "corpus"},
        "tokenizer": {"path": "tokenizer"},
        "teacher": {"path": "replaced"},
        "train": {"steps": 6, "batch_rows": 8, "micro_rows": 2, "row_tokens": 64},
    }
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return make(tmp_path, METHODS)


def make(folder: Path, methods: list[dict[str, Any]], **keys: Any) -> StudyRecipe:
    return StudyRecipe.model_validate(
        {
            "path": folder / "study",
            "teacher": "teacher",
            "recipe": folder / "student.yaml",
            "seeds": [0, 5],
            "methods": methods,
            **keys,
        }
    )


def test_trials_run_seed_by_seed(study: StudyRecipe) -> None:
    """Trials are ordered by seed, and every seed has all methods."""
    assert [trial.name for trial in trials_of(study)] == ["none-0", "soft-0", "none-5", "soft-5"]


def test_method_keys_override_study_keys(study: StudyRecipe, tmp_path: Path) -> None:
    """The keys of a method replace those of the study."""
    keys = {"optim.lr": 1e-5, "student.init": "upper"}
    first, second, *_ = trials_of(make(tmp_path, METHODS, keys=keys))
    recipe = recipe_of(make(tmp_path, METHODS, keys=keys), first)
    assert (recipe.optim.lr, recipe.student.init) == (1e-5, "upper")
    assert [objective.kind for objective in recipe.objectives] == ["hard_mlm"]
    assert recipe_of(make(tmp_path, METHODS, keys=keys), second).student.init == "lower"


def test_trial_has_own_folder_and_seed(
    study: StudyRecipe,
) -> None:
    """A trial has its own folder and seed, and the study's teacher."""
    *_, last = trials_of(study)
    recipe = recipe_of(study, last)
    assert recipe.train.seed == 5
    assert recipe.run.path == study.path / "runs" / "soft-5"
    assert recipe.teacher.path == Path("teacher")


def test_shown_command_can_be_typed(study: StudyRecipe) -> None:
    """A command that is printed can be typed."""
    command = command_of(study, next(trials_of(study)))
    assert shlex.split(shown(command)) == command
    assert command[0] == "deepspeed"
    assert Path(command[1]).name == "distill_student.py"


def test_duplicate_names_are_refused(tmp_path: Path) -> None:
    """A method, task or seed may be named once only."""
    with pytest.raises(ValueError, match="the method none is there twice"):
        make(tmp_path, [METHODS[0], METHODS[0]])
    with pytest.raises(ValueError, match="the seed 3 is there twice"):
        make(tmp_path, METHODS, seeds=[3, 3])
    with pytest.raises(ValueError, match="every study has a row teacher of its own"):
        make(tmp_path, [{**METHODS[0], "name": "teacher"}])


def test_early_end_stops_study(study: StudyRecipe, tmp_path: Path) -> None:
    """A training that ends before its last step stops the study, even with exit code 0."""
    study = make(tmp_path, METHODS, launcher=["true"])
    with pytest.raises(UserError, match="trial none-0 ended with code 0 before its last step"):
        train_trial(study, next(trials_of(study)))


def test_finished_run_of_other_recipe_refused(study: StudyRecipe, tmp_path: Path) -> None:
    """A finished run of another recipe is refused."""
    trial = next(trials_of(study))
    finish(study, trial)
    changed = make(tmp_path, METHODS, keys={"optim.lr": 0.5})
    with pytest.raises(UserError, match=r"none-0 was started with optim\.lr 0\.0001, not 0\.5"):
        train_trial(changed, trial)


def finish(study: StudyRecipe, trial: Trial) -> None:
    """Leave the folder of a trial as a run that is done leaves it."""
    trial.run.mkdir(parents=True)
    tree = {"identity": identity_of(recipe_of(study, trial))}
    (trial.run / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    (trial.run / "status.json").write_text('{"state": "done", "step": 6}', encoding="utf-8")


def test_missing_launcher_is_named(study: StudyRecipe, tmp_path: Path) -> None:
    """A launcher that does not exist is named in the error."""
    study = make(tmp_path, METHODS, launcher=["no-such-launcher"])
    with pytest.raises(UserError, match="The launcher no-such-launcher cannot be started"):
        train_trial(study, next(trials_of(study)))


def test_overrides_keep_types(study: StudyRecipe, tmp_path: Path) -> None:
    """Overrides keep their types."""
    keys = {"train.tf32": True, "student.init": [0, 1], "optim.lr": 1e-05}
    trial = next(trials_of(make(tmp_path, METHODS, keys=keys)))
    recipe = recipe_of(make(tmp_path, METHODS, keys=keys), trial)
    assert (recipe.train.tf32, recipe.student.init, recipe.optim.lr) == (True, [0, 1], 1e-5)
