"""A run with phases and a growing batch resumes exactly within any of them."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stories.conftest import curve, metrics_of

TEACHER = "launch/train_teacher.py"
Command = Callable[..., Any]
# The first step has half as many micro-batches as the next, and the second phase twice as many.
PHASES = [
    "train.phases=[{steps: 3, row_tokens: 32}, {steps: 3, micro_rows: 1}]",
    "train.ramp={from_rows: 4, steps: 1, stages: 1}",
    "optim.schedule=cosine",
]

pytestmark = pytest.mark.story


def trained_positions(run: Path, step: int) -> int:
    """Return what the manifest of a checkpoint states."""
    manifest = run / "checkpoints" / f"step_{step:08d}" / "manifest.json"
    return int(json.loads(manifest.read_text(encoding="utf-8"))["trained_positions"])


def test_resume_within_phases(deepspeed: Command, teacher_recipe: Path, tmp_path: Path) -> None:
    """A run resumes within any phase on the curve of the uninterrupted run."""
    whole = tmp_path / "whole"
    arguments = ["--config", teacher_recipe, *PHASES, "mask.rate_end=0.4", "loader.workers=1"]
    arguments += ["checkpoint.every_steps=1", "checkpoint.keep=9"]
    deepspeed(TEACHER, *arguments, f"run.path={whole}")
    assert len(curve(whole)) == 6
    rows = [line["progress/tokens"] for line in metrics_of(whole) if "loss/total" in line]
    steps = [after - before for before, after in zip([0, *rows], rows, strict=False)]
    assert max(steps[:3]) <= 8 * 32 < min(steps[3:]), "the rows are longer in the second phase"
    assert steps[0] <= 4 * 32 < min(steps[1:]), "the batch has grown after the first step"
    # 4 rows and then 8 a step are half a batch and five; the warm-up of two steps ends at 1.5.
    rises = [1e-3 * min(progress / 1.5, 1) for progress in (0.5, 1.5)]
    falls = [1e-3 * (1 - math.cos(math.pi * left / 4)) / 2 for left in (4, 3, 2, 1)]
    rates = [line["optim/lr"] for line in metrics_of(whole) if "loss/total" in line]
    assert rates == pytest.approx(rises + falls)
    assert [trained_positions(whole, step) for step in (2, 3, 4, 6)] == [32, 32, 64, 64]
    for reached in (2, 4):
        parts = tmp_path / f"from_{reached}"
        shutil.copytree(whole, parts)
        for step in range(reached + 1, 7):
            shutil.rmtree(parts / "checkpoints" / f"step_{step:08d}")
        (parts / "status.json").unlink()
        deepspeed(TEACHER, *arguments, f"run.path={parts}")
        assert curve(parts) == curve(whole)
