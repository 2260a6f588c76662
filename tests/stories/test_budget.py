"""A run with a wall-clock budget ends with it, however often it is interrupted."""

import json
from pathlib import Path

import pytest

from tests.stories.conftest import Command, metrics_of, status_of

pytestmark = pytest.mark.story
TEACHER = "launch/train_teacher.py"
BUDGET_S = 8


def test_interrupted_run_ends_with_budget(
    deepspeed: Command, teacher_recipe: Path, tmp_path: Path
) -> None:
    """A run is done when its budget is used up, over all its restarts."""
    run = tmp_path / "run"
    arguments = ["--config", teacher_recipe, "train.steps=100000", "optim.warmup_steps=0"]
    arguments += ["optim.schedule=budget", f"train.budget_minutes={BUDGET_S / 60}", "optim.lr=1e-3"]
    arguments += ["checkpoint.every_steps=100000", "validation.every_steps=100000"]
    deepspeed(TEACHER, *arguments, f"train.max_minutes={BUDGET_S / 120}")
    first = status_of(run)
    assert (first["state"], first["reason"]) == ("preempted", "train.max_minutes")

    deepspeed(TEACHER, *arguments)
    status = status_of(run)
    assert (status["state"], status["reason"]) == ("done", "used up train.budget_minutes")
    assert first["step"] < status["step"] < 100000
    manifest = run / "checkpoints" / status["last_checkpoint"] / "manifest.json"
    last = json.loads(manifest.read_text(encoding="utf-8"))
    # The step that finds the budget used up is the last one. It may wait for a loaded machine.
    assert BUDGET_S <= last["trained_ms"] / 1000 < 2 * BUDGET_S

    lines = [line for line in metrics_of(run) if "optim/lr" in line]
    rates = [line["optim/lr"] for line in lines]
    assert rates == sorted(rates, reverse=True), "the rate falls through the interruption"
    assert rates[-1] == 0 and rates[0] > 0.7e-3
    after = next(line["optim/lr"] for line in lines if line["step"] > first["step"])
    assert 0.2e-3 < after < 0.6e-3, "about half of the budget was left"
