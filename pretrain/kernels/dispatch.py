"""The implementation of each fused operation, chosen once per run and logged in one line.

`compiled` uses the references too: `torch.compile` fuses them with the layer around them.
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
    """The chosen functions; each has the signature of its reference."""

    bias_gelu: _Operation
    residual_norm: _Operation
    embedding_norm: _Operation
    linear_cross_entropy: Callable[..., CrossEntropy]
    soft_cross_entropy: Callable[..., SoftCrossEntropy]
    name: str  # for the log, such as "block compiled, head triton"


def choose_kernels(block: Block, head: Head, device: torch.device) -> Kernels:
    """Return the functions for `device`; `auto` is the fastest that runs there.

    Raises:
        UserError: Triton is requested by name where it cannot run.
    """
    without_triton = device.type == "cuda" and "auto" in (block, head) and not has_triton()
    block, head = resolve_block(block, device), resolve_head(head, device)
    reason = ", as triton is not installed" if without_triton else ""
    name = f"block {block}, head {head}{reason}"
    gelu, residual, embedding = _block_functions(block, device)
    return Kernels(gelu, residual, embedding, *_head_functions(head), name)


def resolve_block(block: Block, device: torch.device) -> Block:
    """Resolve `auto` for the block on `device`; other values are returned unchanged.

    On a GPU `auto` is compiled rather than Triton: the two have not been compared there yet.
    """
    if block == "triton":
        _require_triton("kernels.block", device)
    if block != "auto":
        return block
    return "compiled" if device.type == "cuda" and has_triton() else "reference"


def resolve_head(head: Head, device: torch.device) -> Head:
    """Resolve `auto` for the vocabulary head on `device`; other values are returned unchanged."""
    if head == "triton":
        _require_triton("kernels.head", device)
    if head != "auto":
        return head
    return "triton" if device.type == "cuda" and has_triton() else "reference"


# The Triton modules are imported only when chosen: triton may not be installed.
def _block_functions(
    block: Block, device: torch.device
) -> tuple[_Operation, _Operation, _Operation]:
    if block == "compiled" and device.type == "cuda" and has_triton():
        # Only the layers are compiled; the embeddings are fused by their Triton kernel.
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


def _require_triton(key: str, device: torch.device) -> None:
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
    """Return whether Triton is installed; `torch.compile` needs it on a GPU, too."""
    return importlib.util.find_spec("triton") is not None
