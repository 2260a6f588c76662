"""How a model is computed: kernels, attention, what is compiled, what is computed again.

Nothing here changes what is computed, up to rounding: a run may go on with other choices.
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
    """The choices of one model."""

    kernels: Kernels = _REFERENCE
    attention: Attention = "sdpa"
    compiled: bool = False  # whether `compile_layers` is to be called
    recompute: int = 0  # layers, from the first, whose activations are not kept but made again


def choose_backend(
    options: "KernelOptions",
    train: "TrainOptions",
    shape: BertShape,
    device: torch.device,
    zero_stage: int = 0,
) -> Backend:
    """Return how to compute a model under a recipe.

    Args:
        options: what the recipe asks for.
        train: its precision, and the layers to compute again.
        shape: of the model.
        device: that computes.
        zero_stage: 3 partitions the weights, which a compiled layer cannot follow.

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
            f"kernels.flash {options.flash} serves kernels.attention varlen, but this run uses "
            f"{attention}: choose builtin."
        )
    return Backend(
        kernels=choose_kernels(block, options.head, device),
        attention=attention,
        compiled=block == "compiled",
        recompute=_recomputed_layers(train.recompute, shape.layers),
    )


def choose_block(
    options: "KernelOptions", shape: BertShape, device: torch.device, zero_stage: int
) -> Block:
    """Return how the parts of a layer are fused.

    Left to itself, a GPU compiles; under ZeRO-3 it takes the Triton kernels instead, and a CPU
    the references.
    """
    block = options.block
    if block == "auto":
        block = _block_of_auto(options, shape, device, zero_stage)
    if block == "compiled" and zero_stage == 3:
        raise UserError(
            "kernels.compile does not go together with ZeRO-3, which takes weights away between "
            "layers: leave out kernels.compile and kernels.block, or use ZeRO-2."
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


def _block_of_auto(
    options: "KernelOptions", shape: BertShape, device: torch.device, zero_stage: int
) -> Block:
    usual = resolve_block("auto", device)
    if options.compile:
        return "compiled"
    if usual == "compiled" and (options.compile is False or zero_stage == 3):
        return "triton" if shape.norm == "post" else "reference"
    return usual


def explain(options: "KernelOptions", backend: Backend, device: torch.device) -> str:
    """Return a line that names the choices, and why a GPU's layers are not compiled."""
    kept = f"{backend.recompute} layer(s) computed again" if backend.recompute else ""
    parts = [backend.kernels.name, f"{backend.attention} attention", kept]
    if backend.compiled:
        parts.append("compiled layers")
    elif device.type == "cuda" and options.compile is None and options.block == "auto":
        parts.append("layers not compiled because ZeRO-3 partitions their weights")
    return f"Computed with {', '.join(part for part in parts if part)}."


def _recomputed_layers(wanted: bool | int, layers: int) -> int:
    if wanted is True:
        return layers
    if wanted > layers:
        raise UserError(
            f"train.recompute {wanted} exceeds the model's {layers} layers: choose at most "
            f"{layers}, or true for all."
        )
    return int(wanted)
