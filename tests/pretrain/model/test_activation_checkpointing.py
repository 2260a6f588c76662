"""Activation checkpointing: the same gradients bit for bit, from less memory."""

import dataclasses

import pytest
import torch

from pretrain.data.batch import Batch
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from tests.model_fixtures import keys_for

LAYERS = 4


def gradients_of(model: Bert, batch: Batch, layers: int) -> tuple[list[torch.Tensor], int]:
    """Return the gradients with `layers` checkpointed, and the bytes saved for backward."""
    saved: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.backend = dataclasses.replace(Backend(), checkpointed_layers=layers)
    model.zero_grad()
    keys = keys_for(batch, LAYERS)
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        terms = model(batch, pretraining_terms, keys)
    torch.manual_seed(layers)  # must have no effect
    torch.stack([term.total for term in terms if term.weight]).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], sum(saved.values())


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_checkpointing_keeps_gradients_exact(
    tiny_shape: BertShape, packed: Batch, norm: str
) -> None:
    """With dropout, gradients under activation checkpointing are the same bit for bit, from less
    memory.
    """
    shape = dataclasses.replace(tiny_shape, layers=LAYERS, dropout=0.3, norm=norm)
    model = Bert(shape)
    initialise(model, seed=0)
    expected, whole = gradients_of(model, packed, 0)
    assert len(expected) == len(list(model.parameters()))
    sizes = [whole]
    for layers in (1, 2, LAYERS):
        found, size = gradients_of(model, packed, layers)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        sizes.append(size)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.5 * whole
