"""Overrides: they reach into lists, and errors name the command line as their source."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from data_prep.config.loader import Options, load_recipe
from data_prep.config.overrides import quoted
from data_prep.errors import UserError


class Loss(Options):
    kind: Literal["mse", "cosine"]
    weight: float = Field(1.0, ge=0)


class Stage(Options):
    steps: int
    losses: list[Loss] = Field([Loss(kind="mse")])


class Recipe(Options):
    pattern: str = "*"
    stages: list[Annotated[Stage, "one stage"]] = Field([])
    losses: list[Loss] = Field([Loss(kind="mse", weight=2.0), Loss(kind="cosine")])
    layers: list[int] | Literal["all"] = "all"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a recipe of two stages."""
    file = tmp_path / "recipe.yaml"
    file.write_text("stages: [{steps: 1}, {steps: 2, losses: [{kind: mse}]}]\nlayers: [0, 2]\n")
    return file


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        load_recipe(Recipe, path, overrides)
    return str(refused.value)


def test_index_reaches_into_a_list(path: Path) -> None:
    """An index sets one element, or one key of it, and leaves the others."""
    recipe = load_recipe(
        Recipe, path, ["stages.1.losses.0.weight=3", "stages.0.steps=7", "layers.1=5"]
    )
    assert [stage.steps for stage in recipe.stages] == [7, 2]
    assert recipe.stages[1].losses[0].weight == 3
    assert recipe.layers == [0, 5]


def test_glob_is_a_value(path: Path) -> None:
    """A glob such as *.txt needs no quotes, though YAML would read an alias."""
    assert load_recipe(Recipe, path, ["pattern=*.jsonl.gz"]).pattern == "*.jsonl.gz"


def test_index_reaches_into_a_default(path: Path) -> None:
    """A list that the file leaves out starts from its default."""
    recipe = load_recipe(Recipe, path, ["losses.1.weight=4"])
    assert [(loss.kind, loss.weight) for loss in recipe.losses] == [("mse", 2.0), ("cosine", 4.0)]
    assert [loss.weight for loss in Recipe().losses] == [2.0, 1.0], "the default is unchanged"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stages.2.steps=1", "element 2 of the list 'stages', which has the elements 0 to 1"),
        ("stages.-1.steps=1", "names '-1' in the list 'stages': name an element by its index"),
        ("stages.first.steps=1", "names 'first' in the list 'stages'"),
        ("layers.0.x=1", "takes 'layers.0' for a group of keys, but it is the value 0"),
        ("losses.5=1", "element 5 of the list 'losses', which has the elements 0 to 1"),
    ],
)
def test_index_out_of_range_is_refused(path: Path, override: str, sentence: str) -> None:
    """An index that does not exist is refused with those that do."""
    assert sentence in refusal(path, override)


def test_error_names_its_source(path: Path) -> None:
    """A wrong value is blamed on the command line where that gave it, else on the file."""
    assert refusal(path, "stages.0.steps=x").startswith("stages.0.steps is 'x' on the command line")
    assert refusal(path, "losses=[{kind: mse, weight: -1}]").startswith(
        "losses.0.weight is -1 on the command line"
    )
    path.write_text("stages: [{steps: x}]\n")
    assert f"stages.0.steps is 'x' in {path}" in refusal(path, "losses.0.weight=1")
    assert load_recipe(Recipe, path, ["stages.0.steps=3"]).stages[0].steps == 3


@pytest.mark.parametrize(
    ("value", "word"),
    [("[0, 2]", "'a.b=[0, 2]'"), ("{kind: x}", "'a.b={kind: x}'"), ("3", "a.b=3")],
)
def test_lists_are_quoted_for_the_shell(value: str, word: str) -> None:
    """A value with brackets is shown in quotes, others without."""
    assert quoted("a.b", value) == word
