"""A run folder stays one run: another recipe is refused, renamed keys are not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.errors import UserError
from pretrain.config.run import TeacherRecipe
from pretrain.distil.config import StudentRecipe
from pretrain.train.run_directory import RunDirectory


def recipe(folder: Path, tokenizer: Path, **train: Any) -> TeacherRecipe:
    """Return a recipe of a run in a folder."""
    return TeacherRecipe.model_validate(tree_of(folder, tokenizer, **train))


def tree_of(folder: Path, tokenizer: Path, **train: Any) -> dict[str, Any]:
    return {
        "run": {"path": folder},
        "corpus": {"path": "corpus"},
        "tokenizer": {"path": tokenizer},
        "train": {"steps": 4, "batch_rows": 4, "micro_rows": 2, **train},
    }


@pytest.fixture
def run(tmp_path: Path, tiny_tokenizer: Path) -> RunDirectory:
    """Return the folder of a run that has begun."""
    directory = RunDirectory(tmp_path / "run")
    directory.begin(recipe(tmp_path / "run", tiny_tokenizer))
    return directory


def test_other_recipe_is_refused(run: RunDirectory, tiny_tokenizer: Path) -> None:
    """The message names the key that differs, and both values."""
    run.check_identity(recipe(run.path, tiny_tokenizer, micro_rows=1))
    message = r"was started with train\.seed 0, not 3: choose another run\.path"
    with pytest.raises(UserError, match=message):
        run.check_identity(recipe(run.path, tiny_tokenizer, seed=3))


def test_folder_with_renamed_keys_is_continued(run: RunDirectory, tiny_tokenizer: Path) -> None:
    """A folder that an earlier version started has keys of that version."""
    tree = {**tree_of(run.path, tiny_tokenizer), "teacher": {"path": "teacher"}}
    student = StudentRecipe.model_validate(tree)
    run.begin(student)
    config = run.path / "config.yaml"
    stored = yaml.safe_load(config.read_text(encoding="utf-8"))
    for old, new in (("teacher.signal", "teacher.cache"),):
        if new in stored["identity"]:
            stored["identity"][old] = stored["identity"].pop(new)
    config.write_text(yaml.safe_dump(stored), encoding="utf-8")
    run.check_identity(student)


def test_unbegun_folder_is_discarded(tmp_path: Path) -> None:
    """What was made for a run that was then refused is removed, and nothing else."""
    directory = RunDirectory(tmp_path / "run")
    (directory.plans / "x").mkdir(parents=True)
    directory.discard_unless_begun()
    assert not directory.path.exists()
    (directory.plans / "x").mkdir(parents=True)
    (directory.path / "thesis.txt").touch()
    directory.discard_unless_begun()
    assert [path.name for path in directory.path.iterdir()] == ["thesis.txt"]
