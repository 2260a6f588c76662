"""Sums with precomputed gradients."""

import torch

from pretrain.losses.precomputed_grad import with_gradients


def test_backward_scales_given_gradients() -> None:
    """The backward pass multiplies the given gradients by the upstream gradient."""
    first, second = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    total = with_gradients(torch.tensor(5.0), (first, second), (torch.arange(2.0), torch.ones(3)))
    assert total.item() == 5.0
    (3 * total).backward()
    assert first.grad is not None and first.grad.tolist() == [0.0, 3.0]
    assert second.grad is not None and second.grad.tolist() == [3.0] * 3


def test_loss_scale_applied_before_fp16_cast() -> None:
    """The least number of fp16 is 2^-24: what is smaller arrives if the scale lifts it first."""
    x = torch.ones(2, dtype=torch.float16, requires_grad=True)
    total = with_gradients(torch.tensor(1.0), [x], [torch.full((2,), 2.0**-30)])
    (total * 2.0**16).backward()
    assert x.grad is not None and x.grad.dtype == torch.float16
    assert x.grad.tolist() == [2.0**-14] * 2


def test_gradients_of_repeated_use_accumulate() -> None:
    """Gradients accumulate where the sum is used twice."""
    x = torch.ones(1, requires_grad=True)
    total = with_gradients(torch.tensor(1.0), [x], [torch.ones(1)])
    (total + 2 * total).backward()
    assert x.grad is not None and x.grad.tolist() == [3.0]
