"""Which implementation of each fused operation a run uses: decided once, and said in one line.

`compiled` are the references too, made one kernel by `torch.compile` with the layer around them.
"""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from data_prep.errors import UserError
from pretrain.kernels.bias_gelu import bias_gelu
from pretrain.kernels.embedding_norm import embedding_norm
from pretrain.kernels.linear_cross_entropy import CrossEntropy, linear_cross_entropy
from pretrain.kernels.residual_norm import residual_norm
from pretrain.kernels.soft_cross_entropy import SoftCrossEntropy, soft_cross_entropy

Block = Literal["auto", "reference", "compiled", "triton"]
Head = Literal["auto", "reference", "triton"]
_Operation = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Kernels:
    """The chosen functions, with the signatures of their references."""

    bias_gelu: _Operation
    residual_norm: _Operation
    embedding_norm: _Operation
    linear_cross_entropy: Callable[..., CrossEntropy]
    soft_cross_entropy: Callable[..., SoftCrossEntropy]
    name: str  # for the log, such as "block compiled, head triton"


def choose_kernels(block: Block, head: Head, device: torch.device) -> Kernels:
    """Return the functions for `device`; `auto` is the best that runs there.

    Raises:
        UserError: Triton is asked for by name where it cannot run.
    """
    lacking = device.type == "cuda" and "auto" in (block, head) and not has_triton()
    block, head = resolve_block(block, device), resolve_head(head, device)
    name = f"block {block}, head {head}" + (", as triton is not installed" if lacking else "")
    gelu, residual, embedding = _block_functions(block, device)
    return Kernels(gelu, residual, embedding, *_head_functions(head), name)


def resolve_block(block: Block, device: torch.device) -> Block:
    """Return what `auto` means for the block on `device`; anything else stays.

    Compiled rather than Triton because the two have not been compared on a GPU yet.
    """
    if block == "triton":
        _refuse_without_triton("kernels.block", device)
    if block != "auto":
        return block
    return "compiled" if device.type == "cuda" and has_triton() else "reference"


def resolve_head(head: Head, device: torch.device) -> Head:
    """Return what `auto` means for the vocabulary head on `device`; anything else stays."""
    if head == "triton":
        _refuse_without_triton("kernels.head", device)
    if head != "auto":
        return head
    return "triton" if device.type == "cuda" and has_triton() else "reference"


# The Triton modules are imported where they are chosen: without a GPU, triton may be missing.
def _block_functions(
    block: Block, device: torch.device
) -> tuple[_Operation, _Operation, _Operation]:
    if block == "compiled" and device.type == "cuda" and has_triton():
        # Only layers are compiled; what stands before them is fused by its kernel.
        from pretrain.kernels.triton import embedding_norm as embedding

        return bias_gelu, residual_norm, embedding.embedding_norm
    if block != "triton":
        return bias_gelu, residual_norm, embedding_norm
    from pretrain.kernels.triton import bias_gelu as gelu
    from pretrain.kernels.triton import embedding_norm as embedding
    from pretrain.kernels.triton import residual_norm as residual

    return gelu.bias_gelu, residual.residual_norm, embedding.embedding_norm


def _head_functions(
    head: Head,
) -> tuple[Callable[..., CrossEntropy], Callable[..., SoftCrossEntropy]]:
    if head != "triton":
        return linear_cross_entropy, soft_cross_entropy
    from pretrain.kernels.triton import linear_cross_entropy as hard
    from pretrain.kernels.triton import soft_cross_entropy as soft

    return hard.linear_cross_entropy, soft.soft_cross_entropy


def _refuse_without_triton(key: str, device: torch.device) -> None:
    if not has_triton():
        raise UserError(
            f"{key} is triton, but the package triton is not installed: "
            f"install it, or set {key}=auto"
        )
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError(
            f"{key} is triton, but the device is {device.type} and Triton needs a GPU: "
            f"set {key}=auto, or TRITON_INTERPRET=1 to interpret its kernels, which is slow"
        )


def has_triton() -> bool:
    """Tell whether there is a compiler of kernels for a GPU; `torch.compile` uses it too."""
    return importlib.util.find_spec("triton") is not None
