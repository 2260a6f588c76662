"""The recipes that are shipped."""

from pathlib import Path

import pytest

from data_prep.config.loader import Options, load_recipe
from data_prep.config.schema import CorpusRecipe
from launch.studies.options import StudyRecipe
from pretrain.config.run import TeacherRecipe
from pretrain.distil.config import StudentRecipe

RECIPES = Path(__file__).parents[2] / "launch" / "recipes"
# By a key that each of them alone has.
KINDS: dict[str, type[Options]] = {
    "corpus:": CorpusRecipe,
    "model:": TeacherRecipe,
    "student:": StudentRecipe,
    "methods:": StudyRecipe,
}
LAPTOP = ("laptop_distilbert", "laptop_minilm", "laptop_tinybert")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_is_valid(path: Path) -> None:
    """Every recipe in `launch/recipes` has only known keys with valid values."""
    lines = path.read_text("utf-8").splitlines()
    kind = [kind for key, kind in KINDS.items() if key in lines][-1]
    assert isinstance(load_recipe(kind, path), kind)


@pytest.mark.parametrize("name", LAPTOP)
def test_laptop_students_follow_the_laptop_teacher(name: str) -> None:
    """Recipes for a laptop run in fp32 under ZeRO-1, on the teacher that its own recipe trains."""
    teacher = load_recipe(TeacherRecipe, RECIPES / "laptop_teacher.yaml")
    student = load_recipe(StudentRecipe, RECIPES / f"{name}.yaml")
    assert student.teacher.path == teacher.run.path
    assert (student.corpus, student.tokenizer) == (teacher.corpus, teacher.tokenizer)
    for recipe in (teacher, student):
        assert recipe.train.precision == "fp32"
        assert recipe.deepspeed.config == Path("ds_configs/zero1_fp32.json")
