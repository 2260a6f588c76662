"""Weights out of DeepSpeed: gathered in fp32, and checkpoints converted for other ranks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

# Without this entry in the saved state, DeepSpeed cannot convert a checkpoint for another number
# of ranks (deepspeed/checkpoint/ds_to_universal.py).
UNIVERSAL_INFO = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}


def gather_fp32_weights(
    model: torch.nn.Module, optimizer: Any, zero_stage: int
) -> dict[str, torch.Tensor]:
    """Return all parameters in fp32 on the CPU, gathered from the ranks that hold parts.

    Collective under ZeRO. Rank 0 gets the weights, the others an empty dictionary.

    Args:
        model: that DeepSpeed trains.
        optimizer: of DeepSpeed, around the one that was given to it.
        zero_stage: 0 to 3.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    masters = _unpartitioned_masters(optimizer) if zero_stage == 0 else {}
    for name, parameter in model.named_parameters():
        full = safe_get_full_fp32_param(parameter)
        if full is None:  # ZeRO-0: whole on every rank
            full = masters.get(id(parameter), parameter).detach()
        if torch.distributed.get_rank() == 0:
            weights[name] = full.reshape(_whole_shape(parameter)).float().cpu().clone()
    return weights


def _unpartitioned_masters(optimizer: Any) -> dict[int, torch.Tensor]:
    """Return the fp32 weights behind the parameters of ZeRO-0 in bf16 or fp16, by id."""
    if not hasattr(optimizer, "fp32_groups"):
        return {}
    groups = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
    return {id(p): master for ps, ms in groups for p, master in zip(ps, ms, strict=True)}


def _whole_shape(parameter: torch.Tensor) -> torch.Size:
    """Return the shape of a parameter, also where ZeRO-3 has emptied it."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def convert_to_universal(source: Path, target: Path) -> None:
    """Convert a checkpoint to DeepSpeed's universal form, which any number of ranks can load."""
    from deepspeed.checkpoint import ds_to_universal

    ds_to_universal.main(
        SimpleNamespace(
            input_folder=str(source),
            output_folder=str(target),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=False,
        )
    )
