"""A run of two stages: layer losses first, then losses on logits."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from data_prep.manifest import file_sha256
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.hf_conversion import to_hf_config
from pretrain.model.loading import WEIGHTS
from tests.stories.conftest import ROOT, Command, metrics_of, run_command, status_of

pytestmark = pytest.mark.story
STUDENT = "launch/distill_student.py"
HEAD = "cls.predictions.bias"
# A narrower student, so that the first stage has projections, which the second does not train.
STUDENT_KEYS = {"layers": 2, "width": 16, "heads": 4, "feed_forward": 32, "format": "distilbert"}
STAGES: list[dict[str, Any]] = [
    {
        "steps": 3,
        "objectives": [
            {"kind": "attention_scores", "student_layer": [1, 2], "teacher_layer": [2, 3]},
            {"kind": "hidden_mse", "student_layer": [1, 2], "teacher_layer": [2, 3]},
            {"kind": "relations", "heads": 8, "teacher_layer": 3, "schedule": {"to": 0.1}},
        ],
    },
    {
        "steps": 3,
        "objectives": [
            {"kind": "soft_targets", "temperature": 4.0, "temperature_schedule": {"to": 1.0}},
            {"kind": "hard_mlm", "weight": 0.5},
        ],
    },
]


@pytest.fixture
def recipe(
    tmp_path: Path, teacher_recipe: Path, published_teacher: Path, tiny_shape: BertShape
) -> Path:
    """Write the recipe of a student of two stages, and give its teacher four layers."""
    shape = dataclasses.replace(tiny_shape, layers=4)
    model = Bert(shape)
    initialise(model, seed=1)
    save_file(model.state_dict(), published_teacher / WEIGHTS)
    config = json.dumps(to_hf_config(shape))
    (published_teacher / "config.json").write_text(config, encoding="utf-8")
    tree = yaml.safe_load(teacher_recipe.read_text(encoding="utf-8"))
    del tree["model"]
    tree |= {"teacher": {"path": str(published_teacher)}, "student": STUDENT_KEYS, "stages": STAGES}
    tree["checkpoint"] = {"every_steps": 1, "keep": 9}
    path = tmp_path / "student.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def losses(run: Path) -> list[dict[str, float]]:
    """Return what each step computed."""
    lines = [line for line in metrics_of(run) if "loss/total" in line]
    kept = ("loss/", "accuracy/", "optim/")
    return [{k: v for k, v in line.items() if k.startswith(kept)} for line in lines]


def weights(run: Path) -> str:
    return file_sha256(run / "checkpoints" / "step_00000006" / WEIGHTS)


def moved(run: Path, first: int, last: int) -> set[str]:
    """Return the parts of a student that differ between the checkpoints of two steps."""
    before, after = (
        load_file(run / "checkpoints" / f"step_{step:08d}" / WEIGHTS) for step in (first, last)
    )
    return {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}


def stopped_at(step: int, whole: Path, copy: Path) -> Path:
    """Copy a run as it was after a step."""
    shutil.copytree(whole, copy)
    for later in range(step + 1, 7):
        shutil.rmtree(copy / "checkpoints" / f"step_{later:08d}")
    (copy / "status.json").unlink()
    return copy


def first_step_of_the_head(run: Path) -> float:
    """Return how far the MLM head's bias moved in the first step of the second stage."""
    before, after = (
        load_file(run / "checkpoints" / f"step_{step:08d}" / WEIGHTS) for step in (3, 4)
    )
    return float((after[HEAD] - before[HEAD]).abs().max())


def test_resume_across_stages_matches_uninterrupted(
    deepspeed: Command, recipe: Path, tmp_path: Path
) -> None:
    """A run resumed before or at the edge of its stages equals an uninterrupted one."""
    whole = tmp_path / "whole"
    deepspeed(STUDENT, "--config", recipe, f"run.path={whole}")
    tags = [{tag for tag in line if tag.startswith("loss/")} for line in losses(whole)]
    layers = {"loss/total", "loss/attention_scores", "loss/hidden_mse", "loss/relations"}
    assert tags == [layers] * 3 + [{"loss/total", "loss/soft_targets", "loss/mlm"}] * 3
    shares = [line["speed/teacher_share"] for line in metrics_of(whole) if "loss/total" in line]
    assert all(0 < share < 1 for share in shares)
    # A sharded teacher gives the same outputs: a run may be resumed with it in either stage.
    for reached, sharded in ((2, True), (3, False)):
        parts = stopped_at(reached, whole, tmp_path / f"from_{reached}")
        keys = [f"run.path={parts}", f"teacher.sharded={str(sharded).lower()}"]
        output = deepspeed(STUDENT, "--config", recipe, *keys).stdout
        assert ("are sharded over 2 ranks" in output) == sharded
        assert status_of(parts)["state"] == "done"
        assert losses(parts) == losses(whole)
        assert weights(parts) == weights(whole)
    # The optimizer groups of the stages are restored at another world size, with sums in another
    # order.
    alone = stopped_at(2, whole, tmp_path / "alone")
    deepspeed(STUDENT, "--config", recipe, f"run.path={alone}", ranks=1)
    for figures, expected in zip(losses(alone), losses(whole), strict=True):
        assert figures == pytest.approx(expected, rel=2e-5, abs=1e-6)

    names = load_file(whole / "checkpoints" / "step_00000006" / WEIGHTS).keys()
    assert sum(name.startswith("projections.") for name in names) == 4
    publish = ["launch/publish_student.py", str(whole), str(tmp_path / "export")]
    run_command([shutil.which("python") or "python", *publish], cwd=ROOT)
    published = load_file(tmp_path / "export" / WEIGHTS)
    assert all(name.startswith(("distilbert.", "vocab_")) for name in published)


def test_stages_equal_under_every_zero_stage(
    deepspeed: Command, recipe: Path, tmp_path: Path
) -> None:
    """Stages train the same parameters to the same losses under ZeRO 0, 1 and 3."""
    found = {}
    for stage in (0, 1, 3):
        run = tmp_path / f"zero{stage}"
        config = f"deepspeed.config=ds_configs/zero{stage}_fp32.json"
        # Student and teacher then both gather weights, in the same group of ranks.
        sharded = f"teacher.sharded={str(stage == 3).lower()}"
        deepspeed(STUDENT, "--config", recipe, config, sharded, f"run.path={run}")
        found[stage] = losses(run)
        # What a stage does not train is unchanged, to the bit: heads in the first one, and in
        # the second one projections, which have momentum from before, and decay.
        assert moved(run, 1, 3) == {"bert", "projections"}
        assert moved(run, 3, 6) == {"bert", "cls"}
        # Adam's first step is as long as its rate; with the idle steps counted it would be 0.6 of
        # it here, and several times as long after thousands.
        assert first_step_of_the_head(run) == pytest.approx(losses(run)[3]["optim/lr"], rel=0.01)
    for stage in (0, 3):
        # The same sums in another order: equal up to the rounding of fp32, over six steps.
        for figures, expected in zip(found[stage], found[1], strict=True):
            assert figures == pytest.approx(expected, rel=2e-5, abs=1e-6)
