"""A sharded teacher: each rank holds a shard of every layer and gathers one layer at a time.

This is torch's FSDP2. Before a layer is computed, its weights are gathered from all ranks into the
tensors that its kernels read; afterwards they are freed. Only the placement of the weights differs:
the same products are computed, so outputs are the same, bit for bit.

Embeddings and heads stay whole on every rank. The decoder is the token embedding, and a soft loss
reads it outside of the teacher's forward pass, while all activations of the student are in memory.
Gathering it then would add as much memory at the very moment that decides the peak.

Host memory is not reduced: every rank loads the whole teacher, in fp32, as the student may be
initialised from any of its layers. It moves to the device layer by layer and is freed on the host.

Gathering is a collective, so all ranks must run the same number of forward passes. Steps guarantee
this: every rank has the same number of micro-batches, with one forward pass each, whatever they
hold.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from data_prep.errors import UserError
from pretrain.model import Bert

# Copies of a layer's weights while it is computed: the all-gather buffer and the parameters.
_GATHERED_COPIES = 2


def shard_layers(model: Bert, device: torch.device) -> Bert:
    """Move a model to a device, its layers sharded over the ranks (all ranks).

    At most one layer at a time is whole on the device; the others stay on the host until then.

    Args:
        model: on the CPU, with its final weights, in their precision.
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
    encoder = model.bert.encoder
    for module in (*model.bert.children(), model.cls):
        if module is not encoder:
            module.to(device)
    for layer in encoder.layer:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # One group for all layers: the next one is gathered while one is computed.
    fully_shard(encoder, mesh=mesh, reshard_after_forward=True)
    return model


def reset_gather_order(model: Any) -> None:
    """Discard the state that FSDP caches in a forward pass for a backward pass.

    No backward pass follows, so that state would grow with every forward pass of a run.
    """
    model.bert.encoder.reset_iter_state()


def full_parameter(parameter: torch.Tensor) -> torch.Tensor:
    """Return a parameter, gathered from all ranks if it is sharded (all ranks)."""
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def peak_parameters(model: Any) -> int:
    """Return the number of parameters on this rank's device while its largest layer is computed."""
    local = sum(_local_part(parameter).numel() for parameter in model.parameters())
    layers = [sum(p.numel() for p in layer.parameters()) for layer in model.bert.encoder.layer]
    return local + _GATHERED_COPIES * max(layers, default=0)


def _local_part(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
