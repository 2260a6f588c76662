"""A study that would not be fair, or could not be scored, is refused before its first step."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.config.loader import load_recipe
from data_prep.errors import UserError
from launch.studies.fairness import check_inputs, check_methods
from launch.studies.options import StudyRecipe
from pretrain.model import BertShape

METHODS: list[dict[str, Any]] = [
    {"name": "none", "what": "no teacher", "keys": {"objectives": [{"kind": "hard_mlm"}]}},
    {"name": "soft", "what": "soft targets", "keys": {"student.init": "lower"}},
]
Make = Callable[..., StudyRecipe]


@pytest.fixture(scope="session")
def tiny_shape(tiny_shape: BertShape) -> BertShape:
    """Give the published teacher the positions that are scored."""
    return dataclasses.replace(tiny_shape, positions=128)


@pytest.fixture
def make(tmp_path: Path, published_teacher: Path, tiny_corpus: Path, tiny_tokenizer: Path) -> Make:
    """Return a study of some methods, whose teacher and corpus are there."""
    tree = {
        "run": {"path": "replaced"},
        "corpus": {"path": str(tiny_corpus)},
        "tokenizer": {"path": str(tiny_tokenizer)},
        "teacher": {"path": "replaced"},
        "train": {"steps": 6, "batch_rows": 8, "micro_rows": 2, "row_tokens": 64},
    }
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")

    def made(methods: list[dict[str, Any]] = METHODS, **keys: Any) -> StudyRecipe:
        paths = {
            "path": tmp_path / "study",
            "teacher": published_teacher,
            "recipe": tmp_path / "student.yaml",
        }
        return StudyRecipe.model_validate({**paths, "methods": methods, **keys})

    return made


def test_methods_may_differ_in_objectives(make: Make) -> None:
    """Methods may differ in their objectives, stages and initialisation."""
    stages = [
        {"steps": 4, "objectives": [{"kind": "hidden_mse"}]},
        {"steps": 2, "objectives": [{"kind": "soft_targets"}]},
    ]
    staged = {"name": "staged", "what": "stages", "keys": {"stages": stages}}
    check_methods(make([*METHODS, staged]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", 7),
        ("train.batch_rows", 16),
        ("corpus.path", "other"),
        ("optim.lr", 0.5),
        ("mask.rate", 0.3),
        ("student.width", 16),
    ],
)
def test_other_differences_are_refused(make: Make, key: str, value: Any) -> None:
    """Methods that differ in any other key are refused."""
    unfair = [METHODS[0], {**METHODS[1], "keys": {key: value}}]
    with pytest.raises(UserError, match=rf"method soft has {key} {value}, but none has"):
        check_methods(make(unfair))


def test_replaced_key_group_is_compared(make: Make) -> None:
    """A group of keys that a method replaces as a whole is compared key by key."""
    whole = [METHODS[0], {**METHODS[1], "keys": {"optim": {"name": "lamb"}}}]
    with pytest.raises(UserError, match=r"soft has optim\.name lamb, but none has adamw"):
        check_methods(make(whole))


def test_misspelt_method_key_is_refused(make: Make) -> None:
    """A misspelt key of a method is refused."""
    with pytest.raises(UserError, match=r"Unknown key 'optim\.rl'"):
        check_methods(make([{**METHODS[0], "keys": {"optim.rl": 1}}]))


def test_changed_study_inputs_are_refused(make: Make, tmp_path: Path) -> None:
    """A study cannot go on with another teacher or corpus."""
    check_inputs(make())
    check_inputs(make())
    kept = tmp_path / "study" / "inputs.json"
    inputs = json.loads(kept.read_text(encoding="utf-8"))
    kept.write_text(json.dumps({**inputs, "teacher": "f" * 64}), encoding="utf-8")
    with pytest.raises(UserError, match="was started with the teacher ffffffffffffffff, not"):
        check_inputs(make())


def test_task_beyond_teacher_positions_refused(make: Make) -> None:
    """A task with longer texts than the teacher has positions is refused."""
    files = {"train": "a.csv", "dev": "b.csv", "test": "c.csv"}
    task = {"name": "long", "max_tokens": 129, **files}
    with pytest.raises(UserError, match="has 128 positions, but rows of 129 tokens are scored"):
        check_inputs(make(tasks=[task]))


def test_missing_teacher_is_named(make: Make, tmp_path: Path) -> None:
    """A teacher that does not exist is named in the error."""
    with pytest.raises(UserError, match="is neither a run folder with a checkpoint nor"):
        check_inputs(make(teacher=tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["study_simplewiki.yaml", "study_base.yaml"])
def test_shipped_studies_are_fair(name: str) -> None:
    """The shipped studies pass the checks and compare the published methods."""
    study = load_recipe(StudyRecipe, Path("launch/recipes") / name)
    check_methods(study)
    names = [method.name for method in study.methods]
    assert names == ["none", "none_copied", "distilbert", "tinybert", "minilm_v2", "default"]
    assert len(study.seeds) >= 3
    assert study.tasks
