"""The recipes that are shipped."""

from pathlib import Path

import pytest

from data_prep.config.loader import Options, load_recipe
from data_prep.config.schema import CorpusRecipe
from launch.studies.options import StudyRecipe
from pretrain.config.run import TeacherRecipe
from pretrain.distil.config import StudentRecipe

RECIPES = Path(__file__).parents[2] / "launch" / "recipes"
KINDS: dict[str, type[Options]] = {
    "corpus": CorpusRecipe,
    "teacher": TeacherRecipe,
    "student": StudentRecipe,
    "study": StudyRecipe,
}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_is_valid(path: Path) -> None:
    """Every recipe in `launch/recipes` has only known keys with valid values."""
    (kind,) = (kind for word, kind in KINDS.items() if word in path.stem)
    assert isinstance(load_recipe(kind, path), kind)
