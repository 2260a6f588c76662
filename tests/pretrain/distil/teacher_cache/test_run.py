"""Teacher caches of a student's recipe: written and opened, with the same losses."""

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
    """Return the recipe of a student with a teacher whose outputs differ everywhere."""
    save_file(tiny_model.state_dict(), published_teacher / WEIGHTS)
    tree = tiny_recipe(tmp_path / "run", tiny_corpus, tiny_tokenizer)
    return tree | {
        "teacher": {"path": str(published_teacher)},
        "objectives": [SOFT, {"kind": "hard_mlm", "weight": 2.0}],
    }


@pytest.fixture
def cached(tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Return the same recipe with a teacher cache."""
    return tree | {"teacher": {**tree["teacher"], "cache": str(tmp_path / "cache")}}


def second_step(
    tree: dict[str, Any], alone: Cluster
) -> tuple[Inputs, list[dict[str, torch.Tensor]]]:
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
def test_cached_run_matches_online(
    tree: dict[str, Any], cached: dict[str, Any], alone: Cluster, precision: str
) -> None:
    """A step with a teacher cache has the losses and gradients of one with a teacher."""
    for each in (tree, cached):
        each["train"] = {**each["train"], "precision": precision}
    write_teacher_caches(
        TeacherCacheRecipe.model_validate(cached | {"teacher_cache": EXACT}), alone
    )
    _, online = second_step(tree, alone)
    _, offline = second_step(cached, alone)
    assert len(online) == len(offline) == 4
    for one, other in zip(online, offline, strict=True):
        assert one.keys() == other.keys() and one["loss/soft_targets"] > 0
        for name, value in one.items():
            # All tokens in fp32: what differs is the order of sums over 201 numbers.
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_loader_workers_add_targets(cached: dict[str, Any], alone: Cluster) -> None:
    """The batches of a loader worker carry the cached targets."""
    write_teacher_caches(
        TeacherCacheRecipe.model_validate(cached | {"teacher_cache": {"count": 5}}), alone
    )
    inputs, _ = second_step(cached, alone)
    dataset = inputs.loader._dataset
    here, there = dataset[2], pickle.loads(pickle.dumps(dataset))[2]
    for name in ("cached_ids", "cached_values", "cached_rest"):
        assert torch.equal(here.tensors[name], there.tensors[name])
    batch: Batch = there.unstack()[1]
    assert batch.cached_ids is not None
    assert batch.cached_ids.shape == (len(batch.masked_positions), 5)


def test_cache_of_other_teacher_refused(
    cached: dict[str, Any], alone: Cluster, published_teacher: Path
) -> None:
    """A cache of another teacher is refused."""
    write_teacher_caches(TeacherCacheRecipe.model_validate(cached), alone)
    weights = published_teacher / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(UserError, match=r"made for something else .teacher is '\w+' there"):
        second_step(cached, alone)


def test_run_beyond_cached_rows_refused(cached: dict[str, Any], alone: Cluster) -> None:
    """A run that reads more rows than are cached is refused."""
    write_teacher_caches(TeacherCacheRecipe.model_validate(cached), alone)
    longer = cached | {"train": {**cached["train"], "steps": 7}}
    with pytest.raises(UserError, match="holds 48 rows, but the run reads 56"):
        second_step(longer, alone)


def test_missing_cache_refused(cached: dict[str, Any], alone: Cluster) -> None:
    """A cache that does not exist is refused, with the command that writes it."""
    with pytest.raises(UserError, match=r"rows_64 has no manifest.json: write it"):
        second_step(cached, alone)


def test_rows_needed_by_length(cached: dict[str, Any]) -> None:
    """Each row length has its own number of rows."""
    phases = [{"steps": 4}, {"steps": 1, "row_tokens": 128, "batch_rows": 4}, {"steps": 1}]
    recipe = StudentRecipe.model_validate(cached | {"train": {**cached["train"], "phases": phases}})
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
def test_uncachable_soft_targets_refused(
    cached: dict[str, Any], objectives: list[dict[str, Any]], problem: str
) -> None:
    """Soft targets that a cache cannot hold are refused."""
    recipe = StudentRecipe.model_validate(cached | {"objectives": objectives})
    with pytest.raises(UserError, match=problem):
        cache_temperature(recipe)


def test_cache_of_several_teachers_refused(cached: dict[str, Any]) -> None:
    """A cache holds the soft targets of a single teacher."""
    teacher = {"paths": ["a", "b"], "cache": "folder"}
    with pytest.raises(ValidationError, match="cache holds the soft targets of one teacher"):
        StudentRecipe.model_validate(cached | {"teacher": teacher})


def test_missing_teacher_or_folder_refused(tree: dict[str, Any], alone: Cluster) -> None:
    """Writing needs teacher.path and teacher.cache."""
    with pytest.raises(UserError, match=r"Give teacher.path, .* and teacher.cache"):
        write_teacher_caches(TeacherCacheRecipe.model_validate(tree), alone)


@pytest.mark.parametrize("begun", [False, True], ids=["new", "with_another_file"])
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"teacher_cache": EXACT | {"count": 202}}, "more than the 201 tokens"),
        ({"corpus": {"path": "nowhere"}}, "nowhere"),
        ({"train": {"batch_rows": 4096, "micro_rows": 4096}}, "fewer than one batch"),
        ({}, "has NaN or infinity in"),
        ({"teacher": {"path": "nowhere"}}, "nowhere"),
    ],
    ids=["count", "corpus", "batch", "teacher's weights", "no teacher"],
)
def test_refused_writing_leaves_nothing(
    cached: dict[str, Any],
    alone: Cluster,
    tmp_path: Path,
    tiny_model: Bert,
    changes: dict[str, Any],
    problem: str,
    begun: bool,
) -> None:
    """A refusal leaves the folder as it was, and no folder where there was none."""
    folder = tmp_path / "some" / "cache"
    if begun:
        folder.mkdir(parents=True)
        (folder / "note.txt").write_text("of another program")
    tree = cached | {"teacher": {**cached["teacher"], "cache": str(folder)}}
    for group, keys in changes.items():
        tree[group] = {**tree.get(group, {}), **keys}
    if not changes:
        tiny_model.cls.predictions.bias.data[7] = torch.nan
        save_file(tiny_model.state_dict(), Path(tree["teacher"]["path"]) / WEIGHTS)
    with pytest.raises(UserError, match=problem):
        write_teacher_caches(TeacherCacheRecipe.model_validate(tree), alone)
    left = sorted(path.name for path in (tmp_path / "some").rglob("*"))
    assert left == (["cache", "note.txt"] if begun else [])
    assert (tmp_path / "some").exists() == begun


def test_earlier_recipe_keys_accepted(tree: dict[str, Any]) -> None:
    """Recipes that name the cache `signal`, as earlier ones did, give the same options."""
    earlier = {"teacher": {**tree["teacher"], "signal": "folder"}, "signal": EXACT}
    current = {"teacher": {**tree["teacher"], "cache": "folder"}, "teacher_cache": EXACT}
    recipes = [TeacherCacheRecipe.model_validate(tree | keys) for keys in (earlier, current)]
    assert recipes[0] == recipes[1]
    assert recipes[0].teacher.cache == Path("folder")
    assert recipes[0].teacher_cache.count == 201
