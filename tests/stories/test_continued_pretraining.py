"""Continued pretraining from a published model, under the real launcher."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_prep.tokenizers.folder import load_tokenizer
from pretrain.checkpoint_manifest import find_newest
from pretrain.model.loading import WEIGHTS
from tests.stories.conftest import Command, status_of


@pytest.mark.story
def test_continued_run_resumes_without_its_start(
    deepspeed: Command, teacher_recipe: Path, published_teacher: Path, tiny_tokenizer: Path
) -> None:
    """A run from a model begins with its weights, and continues exactly once that is gone."""
    tree = yaml.safe_load(teacher_recipe.read_text(encoding="utf-8"))
    run = Path(tree["run"]["path"])
    tree["model"] = {"start": str(published_teacher), "positions": 64}
    tree["samples"] = {"pairs": "none"}  # the pooler of the start is kept, and no loss trains it
    teacher_recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
    command = ("launch/train_teacher.py", "--config", teacher_recipe)
    first = deepspeed(*command, ranks=1)
    assert f"Starting from {published_teacher}" in first.stdout
    whole = load_file(run / "checkpoints" / "step_00000006" / WEIGHTS)
    # Back to the checkpoint before the last, as after a kill.
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    status = status_of(run)
    (run / "status.json").write_text(json.dumps({**status, "state": "preempted", "step": 4}))
    pooler = load_file(published_teacher / WEIGHTS)["bert.pooler.dense.weight"]
    assert torch.equal(whole["bert.pooler.dense.weight"], pooler)
    shutil.rmtree(published_teacher)
    again = deepspeed(*command, ranks=1)
    assert "Continuing from" in again.stdout and "Starting from" not in again.stdout
    resumed = load_file(run / "checkpoints" / "step_00000006" / WEIGHTS)
    assert whole.keys() == resumed.keys() >= {"bert.pooler.dense.weight"}
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    found = find_newest(run / "checkpoints")
    assert found is not None and found.facts.start is not None
    assert found.facts.start.name == "teacher"
    assert found.facts.start.tokenizer == load_tokenizer(tiny_tokenizer).fingerprint
    assert found.facts.trained_positions == 64
