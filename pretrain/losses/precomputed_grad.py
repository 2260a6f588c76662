"""Sums whose gradients were computed along with them: the backward pass only scales these.

What a pass over tiles has in hand gives a sum and its gradient at once. Automatic differentiation
would keep every tile until the backward pass, which is what tiles are there to avoid.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def with_gradients(
    total: torch.Tensor, inputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return the sum as a function of its inputs, each with a gradient of its shape, in fp32.

    Gradients take the type of their input after they are multiplied by what comes from above, such
    as a loss scale.
    """
    return _Known.apply(total, len(inputs), *inputs, *gradients)  # type: ignore[no-untyped-call]


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: torch.Tensor, count: int, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.dtypes = [x.dtype for x in tensors[:count]]
        ctx.save_for_backward(*tensors[count:])
        return total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        parts = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        scaled = [(gradient * above).to(dtype) for gradient, dtype in parts]
        return (None, None, *scaled, *[None] * len(scaled))
