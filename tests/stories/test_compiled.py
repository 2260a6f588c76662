"""A run whose layers are compiled has the same curve, and compiles nothing after a while."""

from pathlib import Path

import pytest

from tests.stories.conftest import Command, curve, metrics_of

pytestmark = pytest.mark.story
TEACHER = "launch/train_teacher.py"


def test_compiled_run_matches_plain(
    deepspeed: Command, teacher_recipe: Path, tmp_path: Path
) -> None:
    """A compiled run with activation checkpointing has the same curve, and compiles nothing after
    its first steps.
    """
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    deepspeed(TEACHER, "--config", teacher_recipe, f"run.path={plain}", ranks=1)
    # Nor does activation checkpointing change anything.
    arguments = ["kernels.compile=true", "train.activation_checkpointing=1", f"run.path={compiled}"]
    ended = deepspeed(TEACHER, "--config", teacher_recipe, *arguments, ranks=1)
    assert "activation checkpointing of 1 layer(s), compiled layers." in ended.stdout
    for step, figures in curve(plain).items():
        # Dropout included: a compiled kernel sums in another order, and nothing else differs.
        assert curve(compiled)[step] == pytest.approx(figures, rel=1e-4), step
    lines = [line for line in metrics_of(compiled) if "loss/total" in line]
    made = [line["speed/recompilations"] for line in lines]
    assert len(made) == 6 and made[0] > 0 and not any(made[1:])
    assert "speed/recompilations" not in metrics_of(plain)[1]
