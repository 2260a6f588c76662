"""Position embeddings that no step would train: refused before any compute."""

from pathlib import Path

import yaml

from launch import distill_student, train_teacher
from pretrain.config.run import TeacherRecipe, identity_of
from pretrain.model import BertShape
from tests.launch.conftest import Refuse
from tests.run_folders import make_run


def test_positions_that_no_row_reaches_are_refused(refuse: Refuse, recipe: Path) -> None:
    """Position embeddings that no phase trains are refused with both remedies."""
    # Before the corpus is opened: it need not exist.
    sentence = refuse(train_teacher, recipe, "model.positions=512", "corpus.path=nowhere")
    assert "positions 64 to 511 would be published untrained" in sentence
    assert "set model.positions=64, or add a phase with rows of 512" in sentence


def test_begun_run_may_leave_positions_untrained(
    refuse: Refuse, recipe: Path, tmp_path: Path
) -> None:
    """A run that an earlier version began is not stopped for the positions that it leaves."""
    tree = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    tree["model"]["positions"] = 512
    started = identity_of(TeacherRecipe.model_validate(tree))
    (tmp_path / "run").mkdir()
    config = tmp_path / "run" / "config.yaml"
    config.write_text(yaml.safe_dump({"identity": started}), encoding="utf-8")
    left_out = {**tree, "model": {k: v for k, v in tree["model"].items() if k != "positions"}}
    recipe.write_text(yaml.safe_dump(left_out), encoding="utf-8")
    # Left out, they were 512 in every earlier version.
    for overrides in ([], ["model.positions=512"]):
        sentence = refuse(train_teacher, recipe, *overrides, "corpus.path=nowhere", keeps_run=True)
        assert "The corpus nowhere has no manifest.json" in sentence, (
            "the check after that of positions"
        )
    sentence = refuse(train_teacher, recipe, "model.positions=64", keeps_run=True)
    assert "was started with model.positions 512, not 64" in sentence


def test_student_positions_that_no_row_reaches_are_refused(
    refuse: Refuse, student_recipe: Path
) -> None:
    """A student that starts at random trains the positions of its own rows alone."""
    short = ("student.init=random", "train.row_tokens=32")
    sentence = refuse(distill_student, student_recipe, *short)
    assert "would have 64 positions, but training reaches 32" in sentence
    assert "set student.positions=32, or add a phase with rows of 64" in sentence
    long = ("student.positions=32", "train.row_tokens=64")
    sentence = refuse(distill_student, student_recipe, "student.init=random", *long)
    assert "train.row_tokens 64 exceeds student.positions 32" in sentence
    sentence = refuse(distill_student, student_recipe, "student.positions=128")
    assert "student.positions is 128, more than the teacher's 64" in sentence


def test_rows_that_the_teacher_never_saw_are_refused(
    refuse: Refuse,
    student_recipe: Path,
    tiny_tokenizer: Path,
    tiny_shape: BertShape,
    tmp_path: Path,
) -> None:
    """Rows beyond the positions that the teacher trained are refused; so is copying them."""
    teacher = tmp_path / "teacher_run"
    make_run(teacher, tiny_tokenizer, "teacher", tiny_shape, trained_positions=32)
    named = f"teacher.path={teacher}"
    sentence = refuse(distill_student, student_recipe, named)
    assert "exceeds the 32 positions that the teacher was trained on, though it has 64" in sentence
    sentence = refuse(distill_student, student_recipe, named, "train.row_tokens=32")
    assert "set student.positions=32" in sentence
