"""A student's run on a stored teacher: written from its recipe, and as good as asking."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from data_prep.errors import UserError
from pretrain.data.batch import Batch
from pretrain.data.setup import Inputs, open_inputs
from pretrain.distil.config import StudentRecipe
from pretrain.distil.setup import set_up_distillation
from pretrain.distil.teacher_cache.run import (
    TeacherCacheRecipe,
    cache_temperature,
    rows_needed,
    write_teacher_caches,
)
from pretrain.distributed import Cluster
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert
from pretrain.model.loading import WEIGHTS
from tests.stories.conftest import tiny_recipe
from tests.student_tasks import terms_of

SOFT = {"kind": "soft_targets", "weight": 5.0, "temperature": 2.0}
EXACT = {"kind": "top_k", "count": 201, "number": "float32"}


@pytest.fixture
def tree(
    tmp_path: Path,
    tiny_corpus: Path,
    tiny_tokenizer: Path,
    published_teacher: Path,
    tiny_model: Bert,
) -> dict[str, Any]:
    """Return the recipe of a student that asks a teacher whose answers differ everywhere."""
    save_file(tiny_model.state_dict(), published_teacher / WEIGHTS)
    tree = tiny_recipe(tmp_path / "run", tiny_corpus, tiny_tokenizer)
    return tree | {
        "teacher": {"path": str(published_teacher)},
        "objectives": [SOFT, {"kind": "hard_mlm", "weight": 2.0}],
    }


@pytest.fixture
def stored(tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Return the same recipe with a folder of answers."""
    return tree | {"teacher": {**tree["teacher"], "cache": str(tmp_path / "signal")}}


def learned(tree: dict[str, Any], alone: Cluster) -> tuple[Inputs, list[dict[str, torch.Tensor]]]:
    """Return the inputs of a run, and figures and a gradient of its second step's micro-batches."""
    recipe = StudentRecipe.model_validate(tree)
    inputs = open_inputs(recipe, recipe.run.path / "plans", alone)
    prepared = set_up_distillation(recipe, inputs, alone)
    student, task = prepared.model, prepared.task
    steps = inputs.loader.steps_from(1)
    found = []
    for batch in next(steps):
        terms = terms_of(student, task, batch, step=1)
        student.zero_grad()
        normalised_loss(terms, batch.counts).backward()
        gradient = student.bert.embeddings.word_embeddings.weight.grad
        assert gradient is not None
        found.append({t.tag: t.total.detach() for t in terms} | {"gradient": gradient.clone()})
    steps.close()
    return inputs, found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_learns_from_disk_what_it_learns_from_its_teacher(
    tree: dict[str, Any], stored: dict[str, Any], alone: Cluster, precision: str
) -> None:
    for each in (tree, stored):
        each["train"] = {**each["train"], "precision": precision}
    write_teacher_caches(
        TeacherCacheRecipe.model_validate(stored | {"teacher_cache": EXACT}), alone
    )
    _, online = learned(tree, alone)
    _, offline = learned(stored, alone)
    assert len(online) == len(offline) == 4
    for one, other in zip(online, offline, strict=True):
        assert one.keys() == other.keys() and one["loss/soft_targets"] > 0
        for name, value in one.items():
            # Every word in fp32: what differs is the order of sums over 201 words.
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_the_rows_that_the_loader_gives_bring_their_answers_to_its_workers(
    stored: dict[str, Any], alone: Cluster
) -> None:
    write_teacher_caches(
        TeacherCacheRecipe.model_validate(stored | {"teacher_cache": {"count": 5}}), alone
    )
    inputs, _ = learned(stored, alone)
    dataset = inputs.loader._dataset
    here, there = dataset[2], pickle.loads(pickle.dumps(dataset))[2]
    for name in ("cached_ids", "cached_values", "cached_rest"):
        assert torch.equal(here.tensors[name], there.tensors[name])
    batch: Batch = there.unstack()[1]
    assert batch.cached_ids is not None
    assert batch.cached_ids.shape == (len(batch.masked_positions), 5)


def test_a_run_takes_no_other_teachers_answers(
    stored: dict[str, Any], alone: Cluster, published_teacher: Path
) -> None:
    write_teacher_caches(TeacherCacheRecipe.model_validate(stored), alone)
    weights = published_teacher / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(UserError, match=r"made for something else .teacher is '\w+' there"):
        learned(stored, alone)


def test_a_run_that_sees_more_rows_than_are_stored_is_refused(
    stored: dict[str, Any], alone: Cluster
) -> None:
    write_teacher_caches(TeacherCacheRecipe.model_validate(stored), alone)
    longer = stored | {"train": {**stored["train"], "steps": 7}}
    with pytest.raises(UserError, match="holds 48 rows, but the run reads 56"):
        learned(longer, alone)


def test_a_run_without_its_folder_is_told_so(stored: dict[str, Any], alone: Cluster) -> None:
    with pytest.raises(UserError, match=r"rows_64 has no manifest.json: write it"):
        learned(stored, alone)


def test_each_length_of_rows_has_a_cache_of_its_own(stored: dict[str, Any]) -> None:
    phases = [{"steps": 4}, {"steps": 1, "row_tokens": 128, "batch_rows": 4}, {"steps": 1}]
    recipe = StudentRecipe.model_validate(stored | {"train": {**stored["train"], "phases": phases}})
    assert rows_needed(recipe) == {64: 40, 128: 4}


@pytest.mark.parametrize(
    ("objectives", "problem"),
    [
        ([{"kind": "hard_mlm"}], "no objective is soft_targets"),
        ([SOFT | {"divergence": "reverse"}], "has divergence reverse at masked"),
        ([SOFT | {"at": "all"}], "has divergence forward at all"),
        ([SOFT, SOFT | {"temperature": 1.0}], "that of soft_targets changes"),
        ([SOFT | {"temperature_schedule": {"to": 1.0}}], "that of soft_targets changes"),
    ],
)
def test_what_is_not_stored_cannot_be_asked_for(
    stored: dict[str, Any], objectives: list[dict[str, Any]], problem: str
) -> None:
    recipe = StudentRecipe.model_validate(stored | {"objectives": objectives})
    with pytest.raises(UserError, match=problem):
        cache_temperature(recipe)


def test_the_answers_of_several_teachers_are_not_stored(stored: dict[str, Any]) -> None:
    teacher = {"paths": ["a", "b"], "cache": "signal"}
    with pytest.raises(ValidationError, match="cache holds the soft targets of one teacher"):
        StudentRecipe.model_validate(stored | {"teacher": teacher})


def test_nobody_to_ask_or_nowhere_to_write_is_refused(tree: dict[str, Any], alone: Cluster) -> None:
    with pytest.raises(UserError, match=r"Give teacher.path, .* and teacher.cache"):
        write_teacher_caches(TeacherCacheRecipe.model_validate(tree), alone)
