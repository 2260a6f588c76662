"""A whole model of Triton kernels equals that of their references, with dropout and gradients.

Without a GPU the kernels run in Triton's interpreter.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pretrain.data.batch_source import BatchSource
from pretrain.kernels.dispatch import choose_kernels
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from tests.model_fixtures import keys_for

OpenSource = Callable[..., BatchSource]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("block", "head"), [("triton", "triton"), ("reference", "triton")])
def test_fused_model_matches_reference(
    tiny_shape: BertShape, open_source: OpenSource, block: str, head: str
) -> None:
    """Losses and gradients with fused kernels equal those of the references, up to rounding."""
    pytest.importorskip("triton")
    shape = dataclasses.replace(tiny_shape, layers=1, dropout=0.2)
    model = Bert(shape)
    initialise(model, seed=0)
    model = model.to(DEVICE)
    batch = open_source().rows(np.arange(2), 2).to(DEVICE)
    keys = keys_for(batch, shape.layers)
    found = []
    for kernels in (choose_kernels("reference", "reference", DEVICE),
                    choose_kernels(block, head, DEVICE)):  # type: ignore[arg-type]  # fmt: skip
        model.backend = Backend(kernels=kernels)
        model.zero_grad()
        terms = model(batch, pretraining_terms, keys)
        torch.stack([term.total for term in terms if term.weight]).sum().backward()
        figures = {term.tag: term.total.detach() for term in terms}
        found.append(figures | {name: p.grad for name, p in model.named_parameters()})
    reference, fused = found
    for name, figure in reference.items():
        # fp32 sums over a hundred tokens in another order.
        tolerance = 2e-5 * float(figure.abs().max()) + 1e-5
        torch.testing.assert_close(
            fused[name], figure, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
