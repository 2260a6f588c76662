"""A teacher that is shared out: each rank keeps a part of its layers and gathers one at a time.

This is torch's FSDP2. Before a layer is computed, its weights are gathered from all ranks into the
tensors that its kernels read; after it they are let go. Only where numbers lie is another: the same
products are computed, so answers are the same, bit for bit.

Embeddings and heads stay whole on every rank. The decoder is the word embedding, and a soft loss
reads it outside of the teacher's forward pass, while all activations of the student are in memory:
gathered for that moment it would take as much, at the very moment that decides the peak.

The host is not spared: every rank reads the whole teacher into its memory, in fp32, as the student
may start from any of its layers. It goes to the device layer by layer, and is let go there.

Gathering is a collective, so all ranks must ask equally often. Steps see to that: every rank has as
many micro-batches in them, and asks about each, whatever it holds.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from data_prep.errors import UserError
from pretrain.model import Bert

# The weights of a layer as they arrive, one behind the other, and what they are copied out to.
_GATHERED = 2


def shard_layers(model: Bert, device: torch.device) -> Bert:
    """Move a model to a device, its layers cut among the ranks (all ranks).

    One layer at a time is whole on the device meanwhile; the host holds the rest until its turn.

    Args:
        model: on the CPU, with the weights that it will keep, in their precision.
        device: of this rank.

    Raises:
        UserError: where torch is too old.
    """
    if not hasattr(FSDPModule, "reset_iter_state"):
        raise UserError(
            f"teacher.sharded needs torch 2.13 or newer, but this is {torch.__version__}: upgrade "
            "it, or leave teacher.sharded out."
        )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    layers = model.bert.encoder
    for module in (*model.bert.children(), model.cls):
        if module is not layers:
            module.to(device)
    for layer in layers.layer:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # All of them belong together: the next one is gathered while one is computed.
    fully_shard(layers, mesh=mesh, reshard_after_forward=True)
    return model


def reset_gather_order(model: Bert) -> None:
    """Let go of what FSDP has noted in a forward pass for a backward pass, which never comes.

    Its notes would grow by every answer of a run.
    """
    layers: Any = model.bert.encoder
    layers.reset_iter_state()


def gather(parameter: torch.Tensor) -> torch.Tensor:
    """Return a parameter whole (all ranks, where it is shared out)."""
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def most_held(model: Bert) -> int:
    """Return how many parameters lie on this rank's device at most, while a layer is computed."""
    own = sum(_part(parameter).numel() for parameter in model.parameters())
    layers = [sum(p.numel() for p in layer.parameters()) for layer in model.bert.encoder.layer]
    return own + _GATHERED * max(layers, default=0)


def _part(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
