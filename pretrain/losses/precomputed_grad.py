"""Sums whose gradients were computed in the forward pass; the backward pass only scales them.

A pass over tiles gives a sum and its gradient at once. Automatic differentiation would keep every
tile in memory until the backward pass, which tiling is meant to avoid.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def with_gradients(
    total: torch.Tensor, inputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return the sum as a differentiable function of its inputs.

    Args:
        total: a scalar.
        inputs: that the sum depends on.
        gradients: of the sum, in fp32, one of the shape of each input. They are cast to the input's
            dtype only after the multiplication by the upstream gradient, such as a loss scale.
    """
    return _PrecomputedGrad.apply(total, len(inputs), *inputs, *gradients)  # type: ignore[no-untyped-call]


def sum_with_gradients(
    compute: Callable[[list[torch.Tensor]], torch.Tensor], inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return a sum as a differentiable function of its inputs, if any of them needs a gradient.

    Args:
        compute: returns the sum, a scalar, and adds its gradients to the fp32 zeros that it is
            given, one of the shape of each input; to none where no gradient is needed.
        inputs: that the sum depends on.
    """
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    with torch.no_grad():
        gradients = [torch.zeros(x.shape, device=x.device) for x in inputs if needs_grad]
        total = compute(gradients)
    return with_gradients(total, inputs, gradients) if needs_grad else total


class _PrecomputedGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: torch.Tensor, count: int, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.dtypes = [x.dtype for x in tensors[:count]]
        ctx.save_for_backward(*tensors[count:])
        return total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        parts = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        scaled = [(gradient * upstream).to(dtype) for gradient, dtype in parts]
        return (None, None, *scaled, *[None] * len(scaled))
