"""A run folder stays one run: another recipe is refused, renamed keys are not."""

import re
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


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["config.json", "model.safetensors", "vocab.txt"], "model.start="),
        (["checkpoint-500/config.json", "training_args.bin"], "checkpoint-500, training_args.bin:"),
        (["config.yaml"], "config.yaml"),  # of another program
        (["plans/house.pdf", "a", "b", "c"], "a, b, c: choose a folder that is empty"),
        (["a", "b", "c", "d"], "a, b, c, ...:"),
    ],
)
def test_folder_of_others_is_refused(tmp_path: Path, files: list[str], named: str) -> None:
    """A model, the run of another program, or any other folder starts no run and stays whole."""
    directory = RunDirectory(tmp_path / "run")
    for name in files:
        path = directory.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("seed: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(named)):
        directory.check_is_free()
    directory.discard_unless_begun()
    assert all((directory.path / name).is_file() for name in files)


def test_file_as_run_folder_is_refused(tmp_path: Path) -> None:
    """A path of a file is no folder to write into."""
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="is a file"):
        RunDirectory(tmp_path / "run").check_is_free()


def test_folder_that_waits_for_a_run_is_free(tmp_path: Path, run: RunDirectory) -> None:
    """No folder, an empty one, one with logs of SLURM or of a killed start, and a run are free."""
    directory = RunDirectory(tmp_path / "new")
    directory.check_is_free()
    directory.path.mkdir()
    directory.check_is_free()
    for name in ("slurm-17.out", "slurm-17_3.err", "train.log", "hostfile.17", "STOP", ".gitkeep"):
        (directory.path / name).touch()
    for name in ("checkpoints", "plans", "tokenizer"):
        (directory.path / name).mkdir()
    directory.check_is_free()
    (run.path / "notes.txt").touch()
    run.check_is_free()
