"""Run folders as training leaves them, made without training."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from data_prep.manifest import write_manifest
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.config.run import TeacherRecipe, identity_of
from pretrain.distil.config import StudentRecipe
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.loading import WEIGHTS
from pretrain.run_facts import RunFacts, TeacherFacts


def make_run(
    folder: Path, tokenizer_path: Path, kind: str, shape: BertShape, **changes: Any
) -> Bert:
    """Write a run folder as training leaves it, with random weights and some other facts."""
    tokenizer = load_tokenizer(tokenizer_path)
    model = Bert(replace(shape, next_sentence=kind == "teacher" and shape.next_sentence))
    initialise(model, seed=7)
    with torch.no_grad():
        for parameter in model.parameters():  # biases too must make a difference
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    checkpoint = folder / "checkpoints" / "step_00000005"
    checkpoint.mkdir(parents=True)
    save_file(model.state_dict(), checkpoint / WEIGHTS)
    facts = replace(facts_of(model, kind, tokenizer.fingerprint), **changes)
    write_manifest(checkpoint, facts.to_dict(), [WEIGHTS])
    shutil.copytree(tokenizer_path, folder / "tokenizer")
    return model


def facts_of(model: Bert, kind: str, tokenizer: str) -> RunFacts:
    """Return the facts of a run that trained a model for five steps."""
    train = {"steps": 5, "batch_rows": 4, "micro_rows": 4, "row_tokens": 64}
    tree: dict[str, Any] = {name: {"path": name} for name in ("run", "corpus", "tokenizer")}
    recipe: TeacherRecipe | StudentRecipe = TeacherRecipe.model_validate({**tree, "train": train})
    teacher = None
    if kind == "student":
        tree["teacher"] = {"path": "teacher"}
        recipe = StudentRecipe.model_validate({**tree, "train": train})
        teacher = TeacherFacts(
            layers=[0, 2], parameters=1234567, validation={"validation/loss_mlm": 1.5}
        )
    return RunFacts(
        teacher=teacher,
        shape=model.shape.to_dict(),
        parameters=model.count_parameters(),
        corpus="c" * 16,
        corpus_documents=60,
        corpus_tokens=4242,
        tokenizer=tokenizer,
        identity=identity_of(recipe),
        device="CPU (test)",
        versions={"torch": "2"},
        step=5,
        samples_seen=20,
        tokens_seen=1000,
        world_size=2,
        validation={"validation/loss_mlm": 2.5, "validation/accuracy_mlm": 0.25},
        trained_positions=64,
    )
