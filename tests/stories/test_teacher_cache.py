"""A teacher cache, from the command that writes it to the student that is trained on it."""

from pathlib import Path

import pytest
import yaml

from tests.stories.conftest import Command, metrics_of, status_of


@pytest.mark.story
def test_cached_run_matches_online_on_two_ranks(
    deepspeed: Command, teacher_recipe: Path, published_teacher: Path, tmp_path: Path
) -> None:
    """A run of two ranks with a teacher cache has the losses of one with the teacher."""
    recipe = yaml.safe_load(teacher_recipe.read_text(encoding="utf-8"))
    del recipe["model"]
    recipe["teacher"] = {"path": str(published_teacher)}
    path = tmp_path / "student.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    cached = f"teacher.cache={tmp_path / 'cache'}"
    exact = ["teacher_cache.kind=top_k", "teacher_cache.count=201", "teacher_cache.number=float32"]
    # The only shard is rank 0's; of the sharded teacher, rank 1 has half.
    keys = [cached, *exact, "train.micro_rows=4", "teacher.sharded=true"]
    result = deepspeed("launch/write_teacher_cache.py", "--config", path, *keys)
    assert "48 rows, 1212 bytes a masked token x about" in result.stdout + result.stderr
    student = ["launch/distill_student.py", "--config", path]
    deepspeed(*student, f"run.path={tmp_path / 'online'}")
    deepspeed(*student, f"run.path={tmp_path / 'offline'}", cached, "loader.workers=1")
    assert status_of(tmp_path / "offline")["state"] == "done"
    for tag in ("loss/soft_targets", "loss/mlm", "loss/hidden_cosine"):
        online, offline = (
            [line[tag] for line in metrics_of(tmp_path / run) if tag in line]
            for run in ("online", "offline")
        )
        assert len(online) == 6
        # All tokens in fp32; steps of Adam amplify rounding. A token's divergence is
        # T² times what is left of sums of 5 nats, which fp32 rounds by 5e-7.
        assert offline == pytest.approx(online, rel=1e-3, abs=2e-6), tag
