"""A run that is stopped, damaged or moved to other ranks continues exactly."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_prep.manifest import file_sha256
from tests.stories.conftest import (
    ROOT,
    Command,
    curve,
    environment,
    launch_command,
    metrics_of,
    status_of,
)

pytestmark = pytest.mark.story
TEACHER = "launch/train_teacher.py"


def weights_file(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step_{step:08d}" / "model.safetensors"


def weights_of(run: Path, step: int) -> str:
    return file_sha256(weights_file(run, step))


def test_resumed_run_matches_uninterrupted(
    deepspeed: Command, teacher_recipe: Path, tmp_path: Path
) -> None:
    """A resumed run equals an uninterrupted one bit for bit, also past a damaged checkpoint."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    deepspeed(TEACHER, "--config", teacher_recipe, f"run.path={whole}")

    # The stop file ends the first attempt after its first step, off the checkpoint interval.
    parts.mkdir()
    (parts / "STOP").touch()
    stopped = deepspeed(TEACHER, "--config", teacher_recipe, f"run.path={parts}")
    assert status_of(parts)["state"] == "preempted"
    assert status_of(parts)["step"] == 1
    assert "the same command continues" in stopped.stdout
    (parts / "STOP").unlink()

    deepspeed(TEACHER, "--config", teacher_recipe, f"run.path={parts}")
    assert status_of(parts)["state"] == "done"
    assert curve(parts) == curve(whole)
    assert len(curve(whole)) == 6
    assert weights_of(parts, 6) == weights_of(whole, 6)

    # The newest checkpoint is damaged: the one before it takes over, and ends in the same place.
    damaged = parts / "checkpoints" / "step_00000006" / "model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    (parts / "status.json").unlink()
    again = deepspeed(TEACHER, "--config", teacher_recipe, f"run.path={parts}")
    assert "step_00000006 is damaged" in again.stderr
    assert weights_of(parts, 6) == weights_of(whole, 6)
    steps = [line["step"] for line in metrics_of(parts) if "loss/total" in line]
    assert steps == [1, 2, 3, 4, 5, 6], "a step appears twice after a resume"


def test_signal_to_one_rank_stops_all(teacher_recipe: Path, tmp_path: Path) -> None:
    """A signal to one rank stops all at the same step, and the command exits 0."""
    run = tmp_path / "run"
    endless = ["train.steps=100000", "log.every_steps=1000", "train.max_minutes=3"]
    command = launch_command(TEACHER, "--config", teacher_recipe, *endless)
    with subprocess.Popen(command, cwd=ROOT, env=environment()) as launcher:
        try:
            wait_for_a_checkpoint(run)
            ranks = find_ranks(teacher_recipe)
            assert len(ranks) == 2
            os.kill(ranks[1], signal.SIGUSR2)
            assert launcher.wait(timeout=120) == 0
        finally:
            launcher.terminate()
    status = status_of(run)
    assert status["state"] == "preempted"
    assert status["reason"] == "a signal"
    assert (run / "checkpoints" / status["last_checkpoint"] / "manifest.json").is_file()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_resume_with_other_ranks(
    deepspeed: Command, teacher_recipe: Path, tmp_path: Path, stage: int
) -> None:
    """A run with dropout continues with other ranks and micro-batches, equal up to rounding."""
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    config = f"deepspeed.config=ds_configs/zero{stage}_fp32.json"
    arguments = ["--config", teacher_recipe, "model.dropout=0.1", "checkpoint.keep=9", config]
    deepspeed(TEACHER, *arguments, f"run.path={whole}")
    shutil.copytree(whole, moved)
    for step in (4, 6):
        shutil.rmtree(moved / "checkpoints" / f"step_{step:08d}")
    (moved / "status.json").unlink()

    deepspeed(TEACHER, *arguments, f"run.path={moved}", "train.micro_rows=4", ranks=1)
    assert status_of(moved)["state"] == "done"
    assert len(curve(moved)) == 6
    # Sums over ranks are now sums over micro-batches: equal up to the rounding of fp32.
    for step, figures in curve(whole).items():
        assert curve(moved)[step] == pytest.approx(figures, rel=2e-6), step


def test_resumed_student_matches_uninterrupted(
    deepspeed: Command, teacher_recipe: Path, published_teacher: Path, tmp_path: Path
) -> None:
    """A resumed student equals an uninterrupted one, and another teacher is refused."""
    recipe = yaml.safe_load(teacher_recipe.read_text(encoding="utf-8"))
    del recipe["model"]
    path = tmp_path / "student.yaml"
    path.write_text(yaml.safe_dump({**recipe, "teacher": {"path": str(published_teacher)}}))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    student = "launch/distill_student.py"
    deepspeed(student, "--config", path, f"run.path={whole}")

    deepspeed(student, "--config", path, f"run.path={parts}", "train.max_minutes=0.00001")
    assert status_of(parts)["state"] == "preempted"
    weights = published_teacher / "model.safetensors"
    true_weights = weights.read_bytes()
    weights.write_bytes(true_weights[:-4] + b"\0\0\0\0")
    refused = deepspeed(student, "--config", path, f"run.path={parts}", code=2)
    assert "was trained with the teacher" in refused.stderr

    weights.write_bytes(true_weights)
    deepspeed(student, "--config", path, f"run.path={parts}")
    assert [
        line["loss/soft_targets"] for line in metrics_of(whole) if "loss/soft_targets" in line
    ] == [line["loss/soft_targets"] for line in metrics_of(parts) if "loss/soft_targets" in line]
    assert weights_of(parts, 6) == weights_of(whole, 6)
    # No loss trains the teacher's pooler, so it is kept to the bit, in every checkpoint.
    of_teacher, own = load_file(weights), load_file(weights_file(parts, 6))
    for name in ("bert.pooler.dense.weight", "bert.pooler.dense.bias"):
        assert torch.equal(own[name], of_teacher[name])


def wait_for_a_checkpoint(run: Path) -> None:
    deadline = time.monotonic() + 120
    # Any of them: on a fast machine the first one may already be replaced.
    while not list(run.glob("checkpoints/step_*/manifest.json")):
        assert time.monotonic() < deadline, f"{run} has no checkpoint"
        time.sleep(0.1)


def find_ranks(recipe: Path) -> list[int]:
    """Return the process ids of the ranks, which the launcher starts with a number of their own."""
    found = subprocess.run(
        ["pgrep", "-f", f"{TEACHER} --local_rank=.*{recipe}"], capture_output=True, text=True
    )
    return sorted(int(pid) for pid in found.stdout.split())
