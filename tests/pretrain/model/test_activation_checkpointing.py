"""Activations computed again: the same gradients to the last bit, from less memory."""

import dataclasses

import pytest
import torch

from pretrain.data.batch import Batch
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from pretrain.model.dropout_rng import dropout_keys

LAYERS = 4


def gradients_of(model: Bert, batch: Batch, recompute: int) -> tuple[list[torch.Tensor], int]:
    """Return the gradients, and the bytes that the forward pass kept for them."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.backend = dataclasses.replace(Backend(), checkpointed_layers=recompute)
    model.zero_grad()
    (keys,) = dropout_keys(1, 2, 3, 1, LAYERS, torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = model(batch, pretraining_terms, keys)
    torch.manual_seed(recompute)  # the global generator has no say
    torch.stack([term.total for term in terms if term.weight]).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], sum(kept.values())


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_gradients_are_the_same_bit_for_bit_with_dropout_on(
    tiny_shape: BertShape, packed: Batch, norm: str
) -> None:
    shape = dataclasses.replace(tiny_shape, layers=LAYERS, dropout=0.3, norm=norm)
    model = Bert(shape)
    initialise(model, seed=0)
    expected, whole = gradients_of(model, packed, 0)
    assert len(expected) == len(list(model.parameters()))
    sizes = [whole]
    for recompute in (1, 2, LAYERS):
        found, size = gradients_of(model, packed, recompute)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        sizes.append(size)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.5 * whole
