"""The DeepSpeed files: one per ZeRO stage and precision, complete, "auto" for the recipe's keys."""

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

OFFLOADED = [
    f"zero{stage}_offload_{precision}" for stage in (2, 3) for precision in ("fp32", "bf16")
]
NAMES = [f"zero{stage}_{precision}" for stage in STAGES for precision in PRECISIONS] + OFFLOADED

ONLY_IN = {name: {"zero_force_ds_cpu_optimizer"} for name in OFFLOADED}
ONLY_IN["zero1_bf16"] = {"communication_data_type"}

every_file = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def stage_of(name: str) -> int:
    return int(name.removeprefix("zero")[0])


def precision_of(name: str) -> str:
    return name.split("_")[-1]


def test_one_file_per_stage_and_precision() -> None:
    """There is one file per ZeRO stage and precision, and per supported offload."""
    assert {file.stem for file in FOLDER.glob("*.json")} == set(NAMES)


@every_file
def test_file_content_matches_name(name: str) -> None:
    """Stage, precision and offload in a file match its name."""
    content = read(name)
    enabled = {kind for kind in ("bf16", "fp16") if content[kind]["enabled"]}
    assert content["zero_optimization"]["stage"] == stage_of(name)
    assert enabled == {precision_of(name)} - {"fp32"}
    assert ("offload_optimizer" in content["zero_optimization"]) == (name in OFFLOADED)


@every_file
def test_recipe_numbers_are_auto(name: str) -> None:
    """The numbers of the recipe are "auto", and a file has no unexpected keys."""
    content = read(name)
    assert {key for key, value in content.items() if value == "auto"} == RECIPE_OWNS
    assert set(content) == RECIPE_OWNS | FILE_OWNS | ONLY_IN.get(name, set())
    assert content.get("zero_force_ds_cpu_optimizer", False) is False, (
        "torch's AdamW, not DeepSpeed's"
    )


@every_file
def test_gradients_accumulate_in_fp32(name: str) -> None:
    """Gradients are accumulated in fp32 wherever DeepSpeed supports it."""
    # Without ZeRO, DeepSpeed accumulates in the parameters' own type and refuses any other.
    expected = precision_of(name) if stage_of(name) == 0 else "fp32"
    assert read(name)["data_types"] == {"grad_accum_dtype": expected}


def test_zero1_bf16_reduces_in_fp32() -> None:
    """ZeRO-1 in bf16 reduces gradients in fp32."""
    content = read("zero1_bf16")
    # Otherwise fp32 sums would be rounded to bf16 for communication.
    assert content["communication_data_type"] == "fp32"
    # Gradients in bf16 are freed as soon as they are accumulated, not after the backward pass.
    assert content["bf16"]["immediate_grad_update"] is True


@every_file
def test_bf16_has_no_overflow_check(name: str) -> None:
    """A step in bf16 has no overflow check, which would synchronise with the device."""
    assert read(name)["bf16"].get("check_grad_overflow", False) is False


@every_file
def test_overlap_comm_is_auto(name: str) -> None:
    """`overlap_comm` is "auto", because it depends on the number of ranks."""
    expected = None if stage_of(name) == 0 else "auto"
    assert read(name)["zero_optimization"].get("overlap_comm") == expected


@every_file
def test_deepspeed_accepts_every_key(name: str) -> None:
    """DeepSpeed accepts every key, and refuses an unknown one."""
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    content = read(name)
    if "overlap_comm" in content["zero_optimization"]:
        content["zero_optimization"]["overlap_comm"] = True  # in place of "auto"
    for kind, section in (
        (DeepSpeedZeroConfig, "zero_optimization"),
        (DeepSpeedBF16Config, "bf16"),
        (DeepSpeedFP16Config, "fp16"),
    ):
        kind(**content[section])
        with pytest.raises(ValueError, match="no_such_key"):
            kind(**content[section], no_such_key=1)


def test_fp16_has_dynamic_loss_scale() -> None:
    """fp16 uses the same dynamic loss scale under every stage."""
    scaling = [read(f"zero{stage}_fp16")["fp16"] for stage in STAGES]
    assert all(section == scaling[0] for section in scaling)
    assert scaling[0]["loss_scale"] == 0
    assert scaling[0]["min_loss_scale"] == 1
