"""The story of a run with phases of length: it goes on exactly, inside either of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stories.conftest import curve, metrics_of

TEACHER = "launch/train_teacher.py"
Command = Callable[..., Any]
# The second phase has twice as many micro-batches a step.
PHASES = "train.phases=[{steps: 3, row_tokens: 32}, {steps: 3, micro_rows: 1}]"

pytestmark = pytest.mark.story


def test_a_run_goes_on_inside_either_phase_as_if_it_had_never_stopped(
    deepspeed: Command, teacher_recipe: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    words = ["--config", teacher_recipe, PHASES, "mask.rate_end=0.4", "loader.workers=1"]
    words += ["checkpoint.every_steps=1", "checkpoint.keep=9"]
    deepspeed(TEACHER, *words, f"run.path={whole}")
    assert len(curve(whole)) == 6
    rows = [line["progress/tokens"] for line in metrics_of(whole) if "loss/total" in line]
    steps = [after - before for before, after in zip([0, *rows], rows, strict=False)]
    assert max(steps[:3]) <= 8 * 32 < min(steps[3:]), "the rows are longer in the second phase"
    for reached in (2, 4):
        parts = tmp_path / f"from_{reached}"
        shutil.copytree(whole, parts)
        for step in range(reached + 1, 7):
            shutil.rmtree(parts / "checkpoints" / f"step_{step:08d}")
        (parts / "status.json").unlink()
        deepspeed(TEACHER, *words, f"run.path={parts}")
        assert curve(parts) == curve(whole)
