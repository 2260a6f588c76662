"""Trials are commands that a person could type, at one budget."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.errors import UserError
from data_prep.recipe import load_recipe
from launch.studies.options import StudyRecipe
from launch.studies.trials import (
    check_budgets,
    command_of,
    recipe_of,
    shown,
    train_trial,
    trials_of,
)

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


def test_each_seed_goes_through_all_methods(study: StudyRecipe) -> None:
    assert [trial.name for trial in trials_of(study)] == ["none-0", "soft-0", "none-5", "soft-5"]


def test_the_keys_of_a_method_come_after_those_of_the_study(
    study: StudyRecipe, tmp_path: Path
) -> None:
    keys = {"optim.lr": 1e-5, "student.init": "upper"}
    first, second, *_ = trials_of(make(tmp_path, METHODS, keys=keys))
    recipe = recipe_of(make(tmp_path, METHODS, keys=keys), first)
    assert (recipe.optim.lr, recipe.student.init) == (1e-5, "upper")
    assert [objective.kind for objective in recipe.objectives] == ["hard_mlm"]
    assert recipe_of(make(tmp_path, METHODS, keys=keys), second).student.init == "lower"


def test_a_trial_has_its_own_folder_and_seed_and_the_teacher_of_the_study(
    study: StudyRecipe,
) -> None:
    *_, last = trials_of(study)
    recipe = recipe_of(study, last)
    assert recipe.train.seed == 5
    assert recipe.run.path == study.path / "runs" / "soft-5"
    assert recipe.teacher.path == Path("teacher")


def test_what_is_shown_can_be_typed(study: StudyRecipe) -> None:
    command = command_of(study, next(trials_of(study)))
    assert shlex.split(shown(command)) == command
    assert command[0] == "deepspeed"
    assert Path(command[1]).name == "distill_student.py"


@pytest.mark.parametrize(
    ("key", "value"), [("train.steps", 7), ("train.batch_rows", 16), ("corpus.path", "other")]
)
def test_methods_of_different_budgets_are_refused(
    study: StudyRecipe, tmp_path: Path, key: str, value: Any
) -> None:
    check_budgets(study)
    unfair = [METHODS[0], {**METHODS[1], "keys": {key: value}}]
    with pytest.raises(UserError, match=rf"method soft has {key} {value}, but none has"):
        check_budgets(make(tmp_path, unfair))


def test_a_misspelt_key_of_a_method_is_found_before_anything_starts(
    study: StudyRecipe, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"Unknown key 'optim\.rl'"):
        check_budgets(make(tmp_path, [{**METHODS[0], "keys": {"optim.rl": 1}}]))


def test_names_are_given_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the method none is there twice"):
        make(tmp_path, [METHODS[0], METHODS[0]])
    with pytest.raises(ValueError, match="the seed 3 is there twice"):
        make(tmp_path, METHODS, seeds=[3, 3])


def test_a_training_that_ends_early_stops_the_study_even_with_exit_code_0(tmp_path: Path) -> None:
    (tmp_path / "student.yaml").write_text("{}", encoding="utf-8")
    study = make(tmp_path, METHODS, launcher=["true"])
    with pytest.raises(UserError, match="trial none-0 ended with code 0 before its last step"):
        train_trial(study, next(trials_of(study)))


def test_overrides_keep_their_types(study: StudyRecipe, tmp_path: Path) -> None:
    keys = {"train.tf32": True, "student.init": [0, 1], "optim.lr": 1e-05}
    trial = next(trials_of(make(tmp_path, METHODS, keys=keys)))
    recipe = recipe_of(make(tmp_path, METHODS, keys=keys), trial)
    assert (recipe.train.tf32, recipe.student.init, recipe.optim.lr) == (True, [0, 1], 1e-5)
    words = command_of(make(tmp_path, METHODS, keys=keys), trial)
    assert f"student.init={json.dumps([0, 1])}" in words


@pytest.mark.parametrize("name", ["study_simplewiki.yaml", "study_base.yaml"])
def test_the_shipped_studies_are_fair_and_compare_the_published_methods(name: str) -> None:
    study = load_recipe(StudyRecipe, Path("launch/recipes") / name)
    check_budgets(study)
    names = [method.name for method in study.methods]
    assert names == ["none", "none_copied", "distilbert", "tinybert", "minilm_v2", "default"]
    assert len(study.seeds) >= 3
    assert study.tasks
