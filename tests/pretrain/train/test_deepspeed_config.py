"""A DeepSpeed JSON and a recipe make one configuration, or are refused before any compute."""

from typing import Any

import pytest
from deepspeed.utils.config import get_timers_config

from data_prep.errors import UserError
from pretrain.config.run import TeacherRecipe
from pretrain.train.deepspeed_config import read_deepspeed_config


def recipe(config: str, **groups: dict[str, Any]) -> TeacherRecipe:
    tree: dict[str, Any] = {
        "run": {"path": "run"},
        "corpus": {"path": "corpus"},
        "tokenizer": {"path": "tokenizer"},
        "train": {"steps": 2, "batch_rows": 8, "micro_rows": 2, **groups.get("train", {})},
        "optim": groups.get("optim", {}),
        "deepspeed": {"config": f"ds_configs/{config}.json"},
    }
    return TeacherRecipe.model_validate(tree)


@pytest.mark.parametrize(("ranks", "expected"), [(1, False), (2, True)])
def test_overlap_needs_several_ranks(ranks: int, expected: bool) -> None:
    """Communication overlaps with computation only on several ranks."""
    for stage in (1, 2, 3):
        config = read_deepspeed_config(recipe(f"zero{stage}_fp32"), ranks, on_gpu=False)
        assert config["zero_optimization"]["overlap_comm"] is expected


def test_no_synchronising_timers() -> None:
    """DeepSpeed's timers, which synchronise with the device, are off."""
    config = read_deepspeed_config(recipe("zero1_fp32"), 1, on_gpu=False)
    assert not get_timers_config(config).enabled
    assert not config["wall_clock_breakdown"]


def test_tf32_needs_a_gpu() -> None:
    """TF32 is refused without a GPU."""
    with_tf32 = recipe("zero1_fp32", train={"tf32": True})
    with pytest.raises(UserError, match=r"train\.tf32 needs a GPU"):
        read_deepspeed_config(with_tf32, 1, on_gpu=False)
    read_deepspeed_config(with_tf32, 1, on_gpu=True)


@pytest.mark.parametrize(
    ("config", "optim", "message"),
    [
        ("zero3_fp32", "lamb", "lamb does not work under ZeRO-3"),
        ("zero2_offload_fp32", "lamb", "with optimizer state on the host"),
        ("zero1_fp32", "muon", "muon does not work under ZeRO-1 in fp32,"),
        ("zero2_offload_fp32", "muon", "muon does not work under ZeRO-2 in fp32 with offload"),
    ],
)
def test_unsupported_optimizer_is_refused(config: str, optim: str, message: str) -> None:
    """An optimizer that a ZeRO stage cannot run is refused before any compute is spent."""
    with pytest.raises(UserError, match=message):
        read_deepspeed_config(recipe(config, optim={"name": optim}), 2, on_gpu=False)
