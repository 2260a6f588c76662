"""Sums with gradients of their own."""

import torch

from pretrain.losses.precomputed_grad import with_gradients


def test_the_backward_pass_scales_what_was_given() -> None:
    first, second = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    total = with_gradients(torch.tensor(5.0), (first, second), (torch.arange(2.0), torch.ones(3)))
    assert total.item() == 5.0
    (3 * total).backward()
    assert first.grad is not None and first.grad.tolist() == [0.0, 3.0]
    assert second.grad is not None and second.grad.tolist() == [3.0] * 3


def test_a_loss_scale_comes_before_the_rounding_to_fp16() -> None:
    """The least number of fp16 is 2^-24: what is smaller arrives if the scale lifts it first."""
    x = torch.ones(2, dtype=torch.float16, requires_grad=True)
    total = with_gradients(torch.tensor(1.0), [x], [torch.full((2,), 2.0**-30)])
    (total * 2.0**16).backward()
    assert x.grad is not None and x.grad.dtype == torch.float16
    assert x.grad.tolist() == [2.0**-14] * 2


def test_a_gradient_that_is_used_twice_is_added_up() -> None:
    x = torch.ones(1, requires_grad=True)
    total = with_gradients(torch.tensor(1.0), [x], [torch.ones(1)])
    (total + 2 * total).backward()
    assert x.grad is not None and x.grad.tolist() == [3.0]
