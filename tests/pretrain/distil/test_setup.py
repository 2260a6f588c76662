"""Set-up of student and teachers: size of each teacher, and what is refused."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.data.batch import Batch
from pretrain.distil.config import StudentRecipe
from pretrain.distil.setup import set_up_distillation
from pretrain.distributed import Cluster
from pretrain.model.loading import WEIGHTS
from pretrain.run_facts import TeacherFacts
from pretrain.train.task import Prepared
from tests.pretrain.conftest import OpenSource
from tests.student_tasks import terms_of


@pytest.fixture
def other_teacher(published_teacher: Path, tmp_path: Path) -> Path:
    """Return a second teacher, of the same shape with other weights."""
    folder = tmp_path / "other"
    shutil.copytree(published_teacher, folder)
    weights = load_file(folder / WEIGHTS)
    save_file({name: tensor + 0.05 for name, tensor in weights.items()}, folder / WEIGHTS)
    return folder


def recipe(teacher: dict[str, Any], **keys: Any) -> StudentRecipe:
    tree = {name: {"path": name} for name in ("run", "corpus", "tokenizer")}
    train = {"steps": 4, "batch_rows": 8, "micro_rows": 2, "row_tokens": 64}
    return StudentRecipe.model_validate({**tree, "train": train, "teacher": teacher, **keys})


def facts_of(prepared: Prepared) -> TeacherFacts:
    assert prepared.teacher_facts is not None
    return prepared.teacher_facts


@pytest.fixture
def inputs(tiny_tokenizer: Path, open_source: OpenSource) -> Any:
    sources = {length: open_source(row_tokens=length) for length in (64, 128)}
    return SimpleNamespace(tokenizer=load_tokenizer(tiny_tokenizer), sources=sources)


def test_unneeded_teacher_layers_removed(
    published_teacher: Path, inputs: Any, alone: Cluster
) -> None:
    """Layers that no loss reads are removed from the teacher; the facts keep its whole size."""
    first = [{"kind": "relations", "heads": 4, "teacher_layer": 1}]
    student_recipe = recipe({"path": str(published_teacher)}, objectives=first)
    prepared = set_up_distillation(student_recipe, inputs, alone)
    facts = facts_of(prepared)
    assert facts.layers == [0]
    layer = sum(p.numel() for p in prepared.model.bert.encoder.layer[0].parameters())
    assert facts.parameters - facts.parameters_kept == layer, (
        "the second of its two layers is not needed"
    )
    assert prepared.task.at(0).teacher_passes[0].shape.layers == 1
    with_logits = [*first, {"kind": "soft_targets"}]
    student_recipe = recipe({"path": str(published_teacher)}, objectives=with_logits)
    facts = facts_of(set_up_distillation(student_recipe, inputs, alone))
    assert facts.parameters == facts.parameters_kept


def test_mlm_head_trained_or_copied(
    published_teacher: Path, tmp_path: Path, inputs: Any, alone: Cluster, packed: Batch
) -> None:
    """A student has an MLM head, and is validated with it, where one is trained or copied."""
    bare = tmp_path / "bare"
    shutil.copytree(published_teacher, bare)
    weights = load_file(bare / WEIGHTS)
    encoder = {name: tensor for name, tensor in weights.items() if not name.startswith("cls.")}
    save_file(encoder, bare / WEIGHTS)
    layers, hard = [{"kind": "hidden_mse"}], [{"kind": "hidden_mse"}, {"kind": "hard_mlm"}]
    for teacher, init, objectives, expected in (
        (published_teacher, "random", layers, False),
        (published_teacher, "lower", layers, True),
        (bare, "lower", layers, False),
        (bare, "lower", hard, True),
    ):
        student_recipe = recipe(
            {"path": str(teacher)}, objectives=objectives, student={"init": init}
        )
        prepared = set_up_distillation(student_recipe, inputs, alone)
        assert prepared.has_mlm_head == expected
        spec = prepared.task.validation(0)
        terms = prepared.model(packed, spec.terms, capture=spec.capture)
        assert ("loss/mlm" in [term.tag for term in terms]) == expected


def test_several_teachers_all_run_forward(
    published_teacher: Path, other_teacher: Path, inputs: Any, alone: Cluster, packed: Batch
) -> None:
    """Every teacher of the recipe has a forward pass and is part of the facts."""
    objectives = [{"kind": "soft_targets"}, {"kind": "hard_mlm"}]
    paths = [str(published_teacher), str(other_teacher)]
    student_recipe = recipe(
        {"paths": paths}, objectives=objectives, student={"format": "distilbert"}
    )
    prepared = set_up_distillation(student_recipe, inputs, alone)
    student, task = prepared.model, prepared.task
    assert len(facts_of(prepared).weights.split("+")) == 2
    assert len(task.at(0).teacher_passes) == 2
    assert not student.shape.token_types
    assert task.teacher_ms() == 0, "the checks at set-up are not part of a step"
    assert all(torch.isfinite(t.total) for t in terms_of(student, task, packed))  # type: ignore[arg-type]
    assert task.teacher_ms() > 0


def test_rows_beyond_teacher_positions_refused(
    published_teacher: Path, inputs: Any, alone: Cluster
) -> None:
    """Rows longer than a teacher's position embeddings are refused."""
    student_recipe = recipe({"path": str(published_teacher)})
    long = student_recipe.train.model_copy(update={"row_tokens": 128})
    with pytest.raises(UserError, match="128 exceeds the teacher's 64 positions"):
        set_up_distillation(student_recipe.model_copy(update={"train": long}), inputs, alone)
