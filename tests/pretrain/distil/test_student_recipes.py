"""Every recipe of a student leads to one whose published weights have all learned something."""

import dataclasses
from pathlib import Path

import pytest
import torch

from data_prep.recipe import load_recipe
from pretrain.batch import Batch
from pretrain.config import StudentRecipe
from pretrain.distil.options import StageOptions
from pretrain.model import Bert, BertShape, initialise
from pretrain.objectives.term import normalised_loss
from tests.classrooms import enrol, terms_of

RECIPES = sorted((Path(__file__).parents[3] / "launch" / "recipes").glob("*student*.yaml"))
SMALLER = 8  # widths are divided by it; heads and layers stay
TEACHERS = {"base": (12, 768, 12), "large": (24, 1024, 16)}


def teacher_of(recipe: Path, tiny_shape: BertShape) -> Bert:
    layers, width, heads = TEACHERS["large" if "mobilebert" in recipe.name else "base"]
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


def test_there_is_a_recipe_of_each_published_student() -> None:
    names = {path.stem.removeprefix("student_") for path in RECIPES}
    assert names >= {
        "default", "distilbert_6x768", "tinybert_4x312", "tinybert_6x768", "minilm_v1_6x384",
        "minilm_v2_6x384", "minilm_v2_6x768", "mobilebert_thin",
    }  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_one_step_of_each_stage_teaches_all_that_is_published(
    path: Path, tiny_shape: BertShape, packed: Batch
) -> None:
    recipe = load_recipe(StudentRecipe, path)
    stages: list[StageOptions] = recipe.all_stages
    student, task = enrol(teacher_of(path, tiny_shape), *stages, **shrunk(recipe))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    before = {name: weight.clone() for name, weight in student.state_dict().items()}
    untaught = {name for name, _ in student.named_parameters()}
    step = 0
    for stage in stages:
        terms = terms_of(student, task, packed, step)
        loss = normalised_loss(terms, packed.counts)
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        untaught -= {name for name, gradient in gradients.items() if gradient.any()}  # type: ignore[union-attr]
        optimizer.step()
        step += stage.steps
    assert untaught == set()
    assert any(not torch.equal(before[name], w) for name, w in student.state_dict().items())
