"""The recipes that are shipped."""

from pathlib import Path

import pytest

from data_prep.config.loader import Options, load_recipe
from data_prep.config.schema import CorpusRecipe
from launch.studies.options import StudyRecipe
from pretrain.config.run import TeacherRecipe
from pretrain.distil.config import StudentRecipe
from pretrain.distil.stage_plan import plan_stages, stages_of
from pretrain.distil.student import choose_layers, student_shape
from pretrain.model import BertShape

RECIPES = Path(__file__).parents[2] / "launch" / "recipes"
# By a key that each of them alone has.
KINDS: dict[str, type[Options]] = {
    "corpus:": CorpusRecipe,
    "model:": TeacherRecipe,
    "student:": StudentRecipe,
    "methods:": StudyRecipe,
}
TEACHERS = [
    path for path in sorted(RECIPES.glob("*.yaml")) if "\nmodel:\n" in path.read_text("utf-8")
]
FOREIGN = {"minilm_student"}  # the teacher is a published model
STUDENTS = [
    path
    for path in sorted(RECIPES.glob("*.yaml"))
    if "\nstudent:\n" in path.read_text("utf-8") and path.stem not in FOREIGN
]
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


def teacher_of(student: StudentRecipe) -> TeacherRecipe:
    """Return the first shipped recipe that trains a student's teacher."""
    recipes = [load_recipe(TeacherRecipe, path) for path in TEACHERS]
    return next(recipe for recipe in recipes if recipe.run.path == student.teacher.path)


@pytest.mark.parametrize("path", STUDENTS, ids=lambda path: path.stem)
def test_student_fits_the_teacher_of_its_recipe(path: Path) -> None:
    """Another recipe trains the teacher, which has the layers that the student reads and copies."""
    student = load_recipe(StudentRecipe, path)
    teacher = teacher_of(student)
    shape = BertShape(
        **teacher.model.model_dump(exclude={"shape", "positions", "start", "vocabulary"}),
        positions=teacher.positions,
        vocab_size=99,
        pad_id=0,
        next_sentence=True,
    )
    own = student_shape(student.student, shape, next_sentence=False)
    assert max(choose_layers(student.student, shape), default=0) < shape.layers
    plan_stages(stages_of(student.all_stages), own, shape, has_mlm_head=True)


@pytest.mark.parametrize("path", TEACHERS, ids=lambda path: path.stem)
def test_teacher_rows_reach_all_positions(path: Path) -> None:
    """The longest rows of a teacher's recipe are as long as its model's longest input."""
    recipe = load_recipe(TeacherRecipe, path)
    # A start has trained all its positions.
    assert recipe.positions in (recipe.train.longest_row, None)


@pytest.mark.parametrize("path", STUDENTS, ids=lambda path: path.stem)
def test_student_rows_reach_all_positions(path: Path) -> None:
    """Rows reach every position of a student, or its teacher's did, whose embeddings it copies."""
    student = load_recipe(StudentRecipe, path)
    rows, trained = student.train.longest_row, teacher_of(student).train.longest_row
    assert rows <= trained
    copied = student.student.init != "random"
    assert (student.student.positions or trained) <= max(rows, trained if copied else 0)


@pytest.mark.parametrize(
    ("name", "trained_at"), [("teacher_continue", 1e-4), ("laptop_continue", None)]
)
def test_continued_rate_suits_the_start(name: str, trained_at: float | None) -> None:
    """A peak rate is a tenth to a half of the start's, as docs/continue_pretraining.md advises."""
    recipe = load_recipe(TeacherRecipe, RECIPES / f"{name}.yaml")
    if trained_at is None:
        starts = [load_recipe(TeacherRecipe, path) for path in TEACHERS]
        trained_at = next(
            s.optim.lr for s in starts if s.run.path == Path(recipe.model.start or "")
        )
    else:  # arXiv 1810.04805, appendix A.2
        assert str(recipe.model.start) == "google-bert/bert-base-uncased"
    assert trained_at / 10 <= recipe.optim.lr <= trained_at / 2
