"""Every student recipe trains all published weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from data_prep.config.loader import load_recipe
from pretrain.data.batch import Batch
from pretrain.distil.config import StudentRecipe
from pretrain.distil.loss_config import LayerObjective, StageOptions
from pretrain.distil.task import DistillationTask
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, BertShape, initialise
from tests.student_tasks import make_distillation, terms_of

RECIPES = [
    path
    for path in sorted((Path(__file__).parents[3] / "launch" / "recipes").glob("*.yaml"))
    if "\nstudent:\n" in path.read_text(encoding="utf-8")
]
# Of a teacher without an MLM head: no objective trains the student's.
WITHOUT_HEAD = {"minilm_student"}
SMALLER = 8  # widths are divided by it; heads and layers stay
TEACHERS = {"base": (12, 768, 12), "mobilebert": (24, 1024, 16), "laptop": (4, 256, 4)}


def teacher_of(recipe: Path, tiny_shape: BertShape) -> Bert:
    named = [name for name in TEACHERS if name in recipe.name]
    layers, width, heads = TEACHERS[named[0] if named else "base"]
    shape = dataclasses.replace(
        tiny_shape,
        layers=layers,
        width=width // SMALLER,
        heads=heads,
        feed_forward=4 * width // SMALLER,
    )
    model = Bert(shape)
    initialise(model, seed=3)
    return model


def shrunk(recipe: StudentRecipe) -> dict[str, object]:
    """Return the student's options with its widths divided, heads as wide as can be."""
    options = recipe.student
    keys = {"layers": options.layers, "init": options.init, "format": options.format}
    if options.heads is not None and options.width is not None:
        keys["heads"] = options.heads
        keys["width"] = options.heads * max(options.width // options.heads // SMALLER, 1)
    if options.feed_forward is not None:
        keys["feed_forward"] = options.feed_forward // SMALLER
    return {key: value for key, value in keys.items() if value is not None}


def test_recipe_of_each_published_student() -> None:
    """Each published student has a recipe."""
    names = {path.stem.removeprefix("student_") for path in RECIPES}
    assert names >= {
        "default", "distilbert_6x768", "tinybert_4x312", "tinybert_6x768", "minilm_v1_6x384",
        "minilm_v2_6x384", "minilm_v2_6x768", "mobilebert_thin",
    }  # fmt: skip


def untrained_by(
    stages: Sequence[StageOptions], student: Bert, task: DistillationTask, batch: Batch
) -> set[str]:
    """Take a step of each stage and return the parameters whose gradients were 0 in all of them."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    untrained = {name for name, _ in student.named_parameters()}
    step = 0
    for stage in stages:
        loss = normalised_loss(terms_of(student, task, batch, step), batch.counts)
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        untrained -= {name for name, gradient in gradients.items() if gradient.any()}  # type: ignore[union-attr]
        optimizer.step()
        step += stage.steps
    return untrained


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains_every_published_weight(
    path: Path, tiny_shape: BertShape, packed: Batch
) -> None:
    """One step of each stage gives every parameter a gradient, but for a head without a teacher."""
    recipe = load_recipe(StudentRecipe, path)
    student, task = make_distillation(
        teacher_of(path, tiny_shape), *recipe.all_stages, **shrunk(recipe)
    )
    before = {name: weight.clone() for name, weight in student.state_dict().items()}
    head = {name for name, _ in student.named_parameters() if name.startswith("cls.predictions.")}
    expected = head if path.stem in WITHOUT_HEAD else set()
    assert untrained_by(recipe.all_stages, student, task, packed) == expected
    # The state is what gets published, but for projections: nothing in it is not a parameter.
    assert set(student.state_dict()) == {name for name, _ in student.named_parameters()}
    assert any(not torch.equal(before[name], w) for name, w in student.state_dict().items())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_without_mlm_leaves_head_untrained(
    path: Path, tiny_shape: BertShape, packed: Batch
) -> None:
    """Without its objectives on logits, a recipe leaves the MLM head untrained."""
    recipe = load_recipe(StudentRecipe, path)
    stages = [
        stage.model_copy(update={"objectives": layers})
        for stage in recipe.all_stages
        if (layers := [o for o in stage.objectives if isinstance(o, LayerObjective)])
    ]
    student, task = make_distillation(teacher_of(path, tiny_shape), *stages, **shrunk(recipe))
    head = {name for name, _ in student.named_parameters() if name.startswith("cls.predictions.")}
    untrained = untrained_by(stages, student, task, packed)
    assert head and head <= untrained
    last = f"bert.encoder.layer.{student.shape.layers - 1}.output.dense.weight"
    relations_alone = "minilm" in path.stem and path.stem not in WITHOUT_HEAD
    assert (last in untrained) == (relations_alone or path.stem == "student_default")
