"""The configuration of DeepSpeed for a run: its JSON, completed from the recipe.

The recipe owns batch, precision, clipping and the optimizer's numbers; a DeepSpeed JSON owns ZeRO
stage, offload and communication, and has "auto" for the rest. A number that both state differently
is an error.
"""

import json
from pathlib import Path
from typing import Any

from data_prep.config.loader import find_shipped
from data_prep.errors import UserError
from pretrain.config.run import RunRecipe
from pretrain.optim.factory import check_optimizer


def read_deepspeed_config(recipe: RunRecipe, world_size: int, on_gpu: bool) -> dict[str, Any]:
    """Return the DeepSpeed configuration of a run with every "auto" filled in.

    Raises:
        UserError: when the JSON and the recipe disagree (the message names both keys), or the
            precision is not possible on this device.
    """
    path = find_shipped(recipe.deepspeed.config, "ds_configs")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    train = recipe.train
    owned = {
        "train_batch_size": ("train.batch_rows", train.batch_rows),
        "train_micro_batch_size_per_gpu": ("train.micro_rows", train.micro_rows),
        "gradient_accumulation_steps": (
            "train.batch_rows / train.micro_rows / ranks",
            train.batch_rows // (train.micro_rows * world_size),
        ),
        "gradient_clipping": ("optim.clip_norm", recipe.optim.clip_norm),
    }
    for key, (name, value) in owned.items():
        stated = config.get(key, "auto")
        if stated not in ("auto", value):
            raise UserError(
                f"{path} has {key} {stated}, but the recipe's {name} is {value}: "
                f'write "auto" in the JSON; the recipe owns this number.'
            )
        config[key] = value
    for section in ("optimizer", "scheduler"):
        if section in config:
            raise UserError(f"{path} has a section {section!r}, but the recipe owns it: remove it.")
    zero = config["zero_optimization"]
    if zero.get("overlap_comm") == "auto":
        # One rank has nothing to overlap, and DeepSpeed would synchronise at the end of every
        # backward pass (ZeRO-2) or step (ZeRO-1 in fp32 and fp16).
        zero["overlap_comm"] = world_size > 1
    # Its throughput timer synchronises before every forward pass and after every step.
    config.setdefault("timers", {"throughput": {"enabled": False}})
    _check_precision(config, path, train.precision, on_gpu)
    if train.tf32 and not on_gpu:
        raise UserError("train.tf32 needs a GPU, and this machine has none: leave it out.")
    check_optimizer(
        recipe.optim.name, zero["stage"], train.precision, offloaded="offload_optimizer" in zero
    )
    return config


def _check_precision(config: dict[str, Any], path: Path, precision: str, on_gpu: bool) -> None:
    stated = next((p for p in ("bf16", "fp16") if config.get(p, {}).get("enabled")), "fp32")
    if stated != precision:
        raise UserError(
            f"{path} computes in {stated}, but the recipe's train.precision is {precision}: "
            f"use the {precision} file of the same ZeRO stage, or change train.precision."
        )
    if precision == "fp16" and not on_gpu:
        raise UserError(
            "train.precision fp16 needs a GPU, and this machine has none: use fp32 or bf16."
        )
