"""Runs that were started before recipe keys were renamed go on with the code of today.

`runs_before_renames.tar.xz` holds a teacher's and a student's run folder, stopped after step 3 of 6
by the last commit that had the keys `train.recompute` and `teacher.signal`, their corpus and
tokenizer, the published teacher of the student, and the metrics of the same runs uninterrupted.
They have no dropout: since then its masks follow rows instead of ranks and micro-batches, so a run
with dropout continues with other masks. All else is computed as it was.
"""

import json
import tarfile
from pathlib import Path

import pytest

from tests.stories.conftest import ROOT, launch_command, run_command, status_of

ARCHIVE = Path(__file__).with_name("runs_before_renames.tar.xz")
SCRIPTS = {"teacher": "train_teacher.py", "student": "distill_student.py"}
# Sums of fp32 come in another order on another processor.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def older_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs as they were left."""
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def expected_curve(metrics: Path) -> dict[int, tuple[float, ...]]:
    """Return losses and gradient norm of the run that was not interrupted, by step."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return {
        line["step"]: (line["loss/total"], line["loss/mlm"], line["optim/grad_norm"])
        for line in lines
        if "loss/total" in line
    }


@pytest.mark.story
@pytest.mark.parametrize("kind", SCRIPTS)
def test_older_run_continues_exactly(kind: str, older_runs: Path) -> None:
    """A run of the commit before the renames reaches its last step on the curve that it had."""
    recipe = older_runs / f"{kind}.yaml"
    assert "recompute: true" in recipe.read_text(encoding="utf-8"), "the recipe has an old key"
    script = ROOT / "launch" / SCRIPTS[kind]
    ended = run_command(launch_command(script, "--config", recipe, ranks=1), cwd=older_runs)
    assert "Continuing from" in ended.stdout
    assert status_of(older_runs / kind)["state"] == "done"
    expected = expected_curve(older_runs / f"{kind}_metrics.jsonl")
    found = expected_curve(older_runs / kind / "metrics.jsonl")
    assert found.keys() == expected.keys() == set(range(1, 7))
    for step in range(4, 7):
        assert found[step] == pytest.approx(expected[step], rel=TOLERANCE)
