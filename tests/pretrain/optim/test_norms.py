"""Norms of tensors of any size, against fp64."""

import pytest
import torch

from pretrain.optim.lamb import Lamb
from pretrain.optim.norms import global_norm, norms_of

MANY = 23_000_000  # word embeddings of BERT-base
# The sums of a few thousand squares round to 2^-24 each, an error of less than this together.
CLOSE = 2e-6


def test_norm_of_equal_elements_is_exact() -> None:
    """The norm of 23 million equal elements is right, whose sum in fp32 is percents too small."""
    x = torch.full((MANY,), 2.0**-10)
    exact = MANY**0.5 * 2.0**-10
    (norm,) = norms_of([x])
    assert norm.dtype == torch.float32 and norm.item() == pytest.approx(exact, rel=CLOSE)
    assert global_norm([x, x]).item() == pytest.approx(2**0.5 * exact, rel=CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_norms_match_fp64(dtype: torch.dtype) -> None:
    """Norms of all sizes equal those of fp64, also of views and of 16-bit numbers."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(1,), (1023,), (1024,), (4097,), (70, 100), (1_000_003,)]
    tensors = [torch.randn(size, generator=generator).to(dtype) for size in sizes]
    tensors += [tensors[4].t(), tensors[5][::3]]
    found, exact = norms_of(tensors), torch.stack([x.double().norm() for x in tensors])
    torch.testing.assert_close(found.double(), exact, rtol=CLOSE, atol=0)
    assert global_norm(tensors).item() == pytest.approx(exact.norm().item(), rel=CLOSE)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nonfinite_elements_show_in_norms(value: float) -> None:
    """NaN or infinity in a tensor is in its norm and in the global one."""
    x = torch.ones(5000)
    x[4990] = value
    norms = norms_of([torch.ones(2), x])
    assert norms[0].isfinite() and not norms[1].isfinite()
    assert not global_norm([torch.ones(2), x]).isfinite()


def test_norms_of_nothing_are_zero() -> None:
    """Empty tensors and an empty list have the norm 0."""
    assert norms_of([torch.zeros(0), torch.zeros(2)]).tolist() == [0.0, 0.0]
    assert global_norm([]).item() == 0.0


def test_lamb_step_of_many_elements_is_exact() -> None:
    """The trust ratio of 23 million elements is that of one element."""
    steps = []
    for count in (1, MANY):
        weight = torch.full((count,), 2.0**-3)
        weight.grad = torch.full((count,), 2.0**-7)
        Lamb([{"params": [weight], "lr": 0.1, "weight_decay": 0.0}]).step()
        steps.append(float(2.0**-3 - weight[0]))
    # The step is the rate times the weight, whatever the gradient is.
    assert steps == pytest.approx([0.1 * 2.0**-3] * 2, rel=CLOSE)
