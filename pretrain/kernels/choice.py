"""Which implementation of each fused operation a model is computed with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from data_prep.errors import UserError
from pretrain.kernels.bias_gelu import bias_gelu
from pretrain.kernels.embedding_norm import embedding_norm
from pretrain.kernels.linear_cross_entropy import CrossEntropy, linear_cross_entropy
from pretrain.kernels.residual_norm import residual_norm

Block = Literal["auto", "reference", "compiled", "triton"]
Head = Literal["auto", "reference", "triton"]


@dataclass(frozen=True)
class Kernels:
    """The fused operations of a model."""

    name: str
    bias_gelu: Callable[..., torch.Tensor] = bias_gelu
    residual_norm: Callable[..., torch.Tensor] = residual_norm
    embedding_norm: Callable[..., torch.Tensor] = embedding_norm
    linear_cross_entropy: Callable[..., CrossEntropy] = linear_cross_entropy


def choose_kernels(block: Block, head: Head, device: torch.device) -> Kernels:
    """Return the operations that a recipe asks for on a device."""
    if device.type == "cpu" and "triton" in (block, head):
        raise UserError("kernels.block triton and kernels.head triton are not built yet.")
    return Kernels(name="block reference, head reference")


def resolve_block(block: Block, device: torch.device) -> Block:
    """Return what `auto` means for the block on `device`; anything else stays."""
    if block != "auto":
        return block
    return "compiled" if device.type == "cuda" else "reference"
