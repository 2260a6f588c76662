"""A linear layer of 16-bit numbers is exact where its output nearly agrees with its target."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain.distil.student import Projection
from pretrain.losses.hidden import cosine_sum, mse_sum
from tests.pretrain.losses.attention_reference import DEVICE

N, D, E = 64, 48, 96
# A bf16 number is off by half of 2^-8 at most, evenly: by norm, about 0.39 of it.
BF16 = 2.0**-8
Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def draw(gap: float, dtype: torch.dtype) -> tuple[Parts, torch.Tensor]:
    """Return states, weight and bias, and a teacher's states `gap` away from the output."""
    generator = torch.Generator().manual_seed(3)
    states_ND = torch.randn(N, D, generator=generator).to(DEVICE, dtype)
    weight_ED = (torch.randn(E, D, generator=generator) / D**0.5).to(DEVICE, dtype)
    bias_E = torch.randn(E, generator=generator).to(DEVICE, dtype)
    exact_NE = F.linear(*(x.double() for x in (states_ND, weight_ED, bias_E)))
    noise_NE = torch.randn(N, E, generator=generator).to(DEVICE)
    return (states_ND, weight_ED, bias_E), exact_NE + gap * noise_NE


def gradients(layer: nn.Linear, parts: Parts, teacher_NE: torch.Tensor) -> Parts:
    """Return the gradients of the squared distance to states, weight and bias."""
    states_ND, weight_ED, bias_E = (part.detach().clone() for part in parts)
    layer = layer.to(states_ND)
    layer.weight.data, layer.bias.data = weight_ED, bias_E
    states_ND.requires_grad_()
    gap_NE = layer(states_ND).to(teacher_NE.dtype) - teacher_NE
    loss = gap_NE.square().mean(-1).sum()
    return torch.autograd.grad(loss, (states_ND, layer.weight, layer.bias))  # type: ignore[return-value]


def largest_error(layer: nn.Linear, gap: float, dtype: torch.dtype) -> float:
    """Return the error of the worst of the three gradients by norm, against fp64."""
    parts, teacher_NE = draw(gap, dtype)
    found = gradients(layer, parts, teacher_NE)
    wide: Parts = tuple(part.double() for part in parts)  # type: ignore[assignment]
    exact = gradients(nn.Linear(D, E), wide, teacher_NE)
    return max(
        float((one.double() - other).norm() / other.norm())
        for one, other in zip(found, exact, strict=True)
    )


@pytest.mark.parametrize("gap", [1.0, 0.1, 0.01])
def test_linear_fp32_out_bf16_error_is_rounding(gap: float) -> None:
    """In bf16, gradients err by their rounding alone, however close output and target are."""
    # The incoming and the outgoing gradient are rounded: 0.39 · √2 = 0.55 of the unit, and
    # somewhat more where parts of a sum cancel.
    assert largest_error(Projection(D, E), gap, torch.bfloat16) < 0.7 * BF16


def test_rounded_linear_has_larger_error() -> None:
    """A layer that rounds its output to bf16 exceeds that bound."""
    assert largest_error(nn.Linear(D, E), 0.1, torch.bfloat16) > 2 * BF16


def test_linear_fp32_out_matches_fp64() -> None:
    """In fp32, gradients equal those in fp64 to six digits."""
    assert largest_error(Projection(D, E), 1.0, torch.float32) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_linear_fp32_out_dtype(dtype: torch.dtype) -> None:
    """The output is fp32, and gradients have the type of the parameters."""
    (states_ND, *_), teacher_NE = draw(1.0, dtype)
    layer = Projection(D, E).to(DEVICE, dtype)
    projected_NE = layer(states_ND)
    assert projected_NE.dtype == torch.float32
    is_token_N = torch.ones(N, dtype=torch.bool, device=DEVICE)
    for loss in (mse_sum, cosine_sum):
        loss(projected_NE, teacher_NE.to(dtype), is_token_N).backward(retain_graph=True)
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == dtype
