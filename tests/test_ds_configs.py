"""The DeepSpeed files: one for each ZeRO stage and precision, complete, and silent on the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "ds_configs"
STAGES = (0, 1, 2, 3)
PRECISIONS = ("fp32", "bf16", "fp16")
RECIPE_OWNS = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
}
FILE_OWNS = {"bf16", "fp16", "data_types", "zero_optimization", "wall_clock_breakdown"}

every_file = pytest.mark.parametrize(
    ("stage", "precision"), [(stage, precision) for stage in STAGES for precision in PRECISIONS]
)


def read(stage: int, precision: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"zero{stage}_{precision}.json").read_text())
    return content


def test_there_is_one_file_for_each_stage_and_precision_and_no_other() -> None:
    expected = {f"zero{stage}_{precision}.json" for stage in STAGES for precision in PRECISIONS}
    assert {file.name for file in FOLDER.glob("*.json")} == expected


@every_file
def test_a_file_is_what_its_name_says(stage: int, precision: str) -> None:
    content = read(stage, precision)
    enabled = {name for name in ("bf16", "fp16") if content[name]["enabled"]}
    assert content["zero_optimization"]["stage"] == stage
    assert enabled == {precision} - {"fp32"}


@every_file
def test_a_file_leaves_the_recipes_numbers_to_the_recipe(stage: int, precision: str) -> None:
    content = read(stage, precision)
    assert {key for key, value in content.items() if value == "auto"} == RECIPE_OWNS
    assert set(content) == RECIPE_OWNS | FILE_OWNS


@every_file
def test_gradients_are_accumulated_in_fp32_wherever_deepspeed_can(
    stage: int, precision: str
) -> None:
    # Without ZeRO, DeepSpeed accumulates in the parameters' own type and refuses any other.
    expected = precision if stage == 0 else "fp32"
    assert read(stage, precision)["data_types"] == {"grad_accum_dtype": expected}


@every_file
def test_deepspeed_knows_every_key(stage: int, precision: str) -> None:
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    content = read(stage, precision)
    for kind, section in (
        (DeepSpeedZeroConfig, "zero_optimization"),
        (DeepSpeedBF16Config, "bf16"),
        (DeepSpeedFP16Config, "fp16"),
    ):
        kind(**content[section])
        with pytest.raises(ValueError, match="no_such_key"):
            kind(**content[section], no_such_key=1)


def test_fp16_scales_its_loss_dynamically() -> None:
    scaling = [read(stage, "fp16")["fp16"] for stage in STAGES]
    assert all(section == scaling[0] for section in scaling)
    assert scaling[0]["loss_scale"] == 0
    assert scaling[0]["min_loss_scale"] == 1
