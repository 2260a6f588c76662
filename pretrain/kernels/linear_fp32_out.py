"""A linear layer of 16-bit numbers whose output is not rounded to 16 bits.

Where an output nearly agrees with its target, the gradient of their distance is the difference of
two nearly equal numbers: with outputs in bf16, off by up to 0.4 %, it is wrong by 2 % where they
differ by a tenth.
Shapes: N tokens, D width, E width of the output.
"""

from typing import Any

import torch
import torch.nn.functional as F


def linear_fp32_out(
    states_ND: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor
) -> torch.Tensor:
    """Return `states @ weight.T + bias`, [N, E], in fp32 (fp64 for fp64 inputs).

    For 16-bit inputs, the incoming gradient is rounded before its products, as in any layer.
    """
    if states_ND.dtype in (torch.float32, torch.float64):
        return F.linear(states_ND, weight_ED, bias_E)
    return _LinearFp32Out.apply(states_ND, weight_ED, bias_E)  # type: ignore[no-untyped-call]


class _LinearFp32Out(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states_ND: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(states_ND, weight_ED)
        return _product(states_ND, weight_ED.t()) + bias_E.float()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states_ND, weight_ED = ctx.saved_tensors
        (gradient_NE,) = gradients
        rounded_NE = gradient_NE.to(weight_ED.dtype)
        bias_E = gradient_NE.sum(0).to(weight_ED.dtype)
        return rounded_NE @ weight_ED, rounded_NE.t() @ states_ND, bias_E


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()  # the CPU has no such product
