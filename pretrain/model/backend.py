"""How a model is computed: kernels, attention, compilation, activation checkpointing.

None of these choices changes a result beyond rounding, so a run may resume with other ones.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from data_prep.errors import UserError
from pretrain.kernels.dispatch import Block, Kernels, choose_kernels, resolve_block
from pretrain.model.attention import Attention, activate_flash, choose_attention
from pretrain.model.config import BertShape

if TYPE_CHECKING:  # a model runs without the package that reads recipes
    from pretrain.config.model import KernelOptions
    from pretrain.config.train import TrainOptions

_REFERENCE = choose_kernels("reference", "reference", torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The kernels, attention, compilation and activation checkpointing of one model."""

    kernels: Kernels = _REFERENCE
    attention: Attention = "sdpa"
    compiled: bool = False  # whether `apply_backend` compiles the layers
    checkpointed_layers: int = 0  # the first so many layers use activation checkpointing


def choose_backend(
    options: "KernelOptions",
    train: "TrainOptions",
    shape: BertShape,
    device: torch.device,
    zero_stage: int = 0,
) -> Backend:
    """Resolve the recipe's choices for a model, device and ZeRO stage.

    Args:
        options: the recipe's group `kernels`.
        train: its precision and activation checkpointing.
        shape: of the model.
        device: the device of the model.
        zero_stage: stage 3 partitions the weights, which excludes compiled layers.

    Raises:
        UserError: for choices that contradict each other, the device or ZeRO.
    """
    block = choose_block(options, shape, device, zero_stage)
    head_width = shape.width // shape.heads
    attention = choose_attention(options.attention, device, train.precision, head_width)
    if attention == "varlen":
        activate_flash(options.flash)
    elif options.flash != "builtin":
        raise UserError(
            f"kernels.flash {options.flash} applies to kernels.attention varlen, but this run uses "
            f"{attention}: choose builtin."
        )
    return Backend(
        kernels=choose_kernels(block, options.head, device),
        attention=attention,
        compiled=block == "compiled",
        checkpointed_layers=_checkpointed_layers(train.activation_checkpointing, shape.layers),
    )


def choose_block(
    options: "KernelOptions", shape: BertShape, device: torch.device, zero_stage: int
) -> Block:
    """Return the implementation of a layer's fused operations.

    With `auto`, a GPU compiles its layers, or uses the Triton kernels under ZeRO-3; a CPU uses the
    references.

    Raises:
        UserError: for choices that contradict each other, ZeRO-3 or the model.
    """
    block = options.block
    if block == "auto":
        block = _resolve_auto_block(options, shape, device, zero_stage)
    if block == "compiled" and zero_stage == 3:
        raise UserError(
            "kernels.compile does not work under ZeRO-3, which partitions the weights of each "
            "layer: leave out kernels.compile and kernels.block, or use ZeRO-2."
        )
    if options.compile not in (None, block == "compiled"):
        raise UserError(
            f"kernels.compile {str(options.compile).lower()} contradicts kernels.block "
            f"{block}: leave out one of them."
        )
    if block == "triton" and shape.norm == "pre":
        raise UserError(
            "kernels.block triton has no kernel for model.norm pre: use compiled or reference."
        )
    return block


def _resolve_auto_block(
    options: "KernelOptions", shape: BertShape, device: torch.device, zero_stage: int
) -> Block:
    default = resolve_block("auto", device)
    if options.compile:
        return "compiled"
    if default == "compiled" and (options.compile is False or zero_stage == 3):
        return "triton" if shape.norm == "post" else "reference"
    return default


def describe_backend(options: "KernelOptions", backend: Backend, device: torch.device) -> str:
    """Return one line for the log: the choices, and why a GPU's layers are not compiled."""
    parts = [backend.kernels.name, f"{backend.attention} attention"]
    if backend.checkpointed_layers:
        parts.append(f"activation checkpointing of {backend.checkpointed_layers} layer(s)")
    if backend.compiled:
        parts.append("compiled layers")
    elif device.type == "cuda" and options.compile is None and options.block == "auto":
        parts.append("layers not compiled because ZeRO-3 partitions their weights")
    return f"Computed with {', '.join(parts)}."


def _checkpointed_layers(requested: bool | int, layers: int) -> int:
    if requested is True:
        return layers
    if requested > layers:
        raise UserError(
            f"train.activation_checkpointing {requested} exceeds the model's {layers} layers: "
            f"choose at most {layers}, or true for all."
        )
    return int(requested)
