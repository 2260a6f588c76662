"""The fused operations as a training step calls them: inputs, forward and backward pass.

Inputs are drawn alike for every implementation, so that their results can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from pretrain.kernels.dispatch import Kernels, choose_kernels
from pretrain.kernels.linear_cross_entropy import CrossEntropy
from pretrain.kernels.soft_cross_entropy import Head

_HOW: dict[str, Any] = {"epsilon": 1e-12, "rate": 0.1}
_MASKED_SHARE = 0.15
_POSITIONS = 512
Work = Callable[[], list[torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Size:
    """N tokens, D width, F feed-forward, V vocabulary."""

    tokens: int
    width: int
    feed_forward: int
    vocab_size: int = 30522

    @property
    def masked(self) -> int:
        """Tokens that the vocabulary head is asked for."""
        return round(_MASKED_SHARE * self.tokens)


class Draw:
    """Random inputs of one case, the same for every implementation.

    Args:
        dtype: that the operation computes in.
        device: where.
        rounded_to: a type whose rounding the inputs have had before, for a reference in fp64.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, rounded_to: torch.dtype) -> None:
        self._dtype, self._device, self._rounded_to = dtype, device, rounded_to
        self._generator = torch.Generator(device).manual_seed(0)

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> torch.Tensor:
        """Return numbers that need a gradient."""
        drawn = torch.randn(shape, generator=self._generator, device=self._device)
        rounded = (mean + scale * drawn).to(self._rounded_to)
        return rounded.to(self._dtype).requires_grad_()

    def integers(self, below: int, count: int) -> torch.Tensor:
        """Return int64 numbers below a bound."""
        return torch.randint(below, (count,), generator=self._generator, device=self._device)

    def key(self) -> torch.Tensor:
        """Return a key of dropout."""
        return torch.tensor([7, 11], dtype=torch.int32, device=self._device)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation.

    Attributes:
        name: of the field of `Kernels`.
        inputs: draws what it is called with.
        call: runs it.
        elements: those that any implementation must read and write, there and back.
        flops: of its matrix products, there and back.
    """

    name: str
    inputs: Callable[[Size, Draw], Sequence[torch.Tensor]]
    call: Callable[[Kernels, Sequence[torch.Tensor]], torch.Tensor]
    elements: Callable[[Size], int]
    flops: Callable[[Size], int] = lambda size: 0

    def prepare(
        self,
        kernels: Kernels,
        size: Size,
        dtype: torch.dtype,
        device: torch.device,
        rounded_to: torch.dtype | None = None,
    ) -> Work:
        """Return the forward and backward pass, which gives the output and all gradients."""
        draw = Draw(dtype, device, rounded_to or dtype)
        inputs = self.inputs(size, draw)
        leaves = [tensor for tensor in inputs if tensor.requires_grad]
        output = self.call(kernels, inputs)
        gradient = torch.ones_like(output)
        if output.ndim:
            gradient = draw.normal(*output.shape).detach()

        def work() -> list[torch.Tensor]:
            output = self.call(kernels, inputs)
            return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]

        return work


def exact_kernels() -> Kernels:
    """Return operations that keep to the precision of what comes in, for references in fp64."""
    plain = choose_kernels("reference", "reference", torch.device("cpu"))
    return replace(plain, linear_cross_entropy=_exact_cross_entropy)


def _exact_cross_entropy(
    hidden_MD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor, labels_M: torch.Tensor
) -> CrossEntropy:
    # Its reference computes in fp32 whatever comes in.
    logits_MV = F.linear(hidden_MD, weight_VD, bias_V)
    loss = F.cross_entropy(logits_MV, labels_M, reduction="sum")
    return CrossEntropy(loss, (logits_MV.argmax(-1) == labels_M).sum())


def _residual_norm(kernels: Kernels, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    *tensors, key = inputs
    return kernels.residual_norm(*tensors, key=key, **_HOW)


def _embedding_norm(kernels: Kernels, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    *tensors, key = inputs
    return kernels.embedding_norm(*tensors, key=key, **_HOW)


def _distilled(kernels: Kernels, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    # The temperature and weights of DistilBERT.
    student, teacher, labels_M = Head(*inputs[:3]), Head(*inputs[3:6]), inputs[6]
    how = {"temperature": 2.0, "soft_weight": 5.0, "hard_weight": 2.0}
    return kernels.soft_cross_entropy(student, teacher, labels_M, **how).total


def _two_heads(size: Size, draw: Draw) -> Sequence[torch.Tensor]:
    heads = [_head(size, draw), [tensor.detach() for tensor in _head(size, draw)]]
    return [*heads[0], *heads[1], draw.integers(size.vocab_size, size.masked)]


def _head(size: Size, draw: Draw) -> list[torch.Tensor]:
    return [
        draw.normal(size.masked, size.width),
        draw.normal(size.vocab_size, size.width, scale=0.02),
        draw.normal(size.vocab_size, scale=0.02),
    ]


def _embedding_inputs(size: Size, draw: Draw) -> Sequence[torch.Tensor]:
    return [
        draw.integers(size.vocab_size, size.tokens),
        draw.integers(2, size.tokens),
        draw.integers(_POSITIONS, size.tokens),
        draw.normal(size.vocab_size, size.width, scale=0.02),
        draw.normal(2, size.width, scale=0.02),
        draw.normal(_POSITIONS, size.width, scale=0.02),
        draw.normal(size.width, scale=0.1, mean=1.0),
        draw.normal(size.width, scale=0.1),
        draw.key(),
    ]


CASES = (
    Case(
        name="bias_gelu",
        inputs=lambda size, draw: [
            draw.normal(size.tokens, size.feed_forward),
            draw.normal(size.feed_forward),
        ],
        call=lambda kernels, inputs: kernels.bias_gelu(*inputs),
        # x and y; x, y's gradient and x's.
        elements=lambda size: 5 * size.tokens * size.feed_forward,
    ),
    Case(
        name="residual_norm",
        inputs=lambda size, draw: [
            draw.normal(size.tokens, size.width),
            draw.normal(size.width, scale=0.1),
            draw.normal(size.tokens, size.width),
            draw.normal(size.width, scale=0.1, mean=1.0),
            draw.normal(size.width, scale=0.1),
            draw.key(),
        ],
        call=_residual_norm,
        # Two inputs and the output; one of these, its gradient and those of both inputs.
        elements=lambda size: 7 * size.tokens * size.width,
    ),
    Case(
        name="embedding_norm",
        inputs=_embedding_inputs,
        call=_embedding_norm,
        # Words and the output; words, its gradient; the gradient of the whole table.
        elements=lambda size: (4 * size.tokens + size.vocab_size) * size.width,
    ),
    Case(
        name="linear_cross_entropy",
        inputs=lambda size, draw: [
            *_head(size, draw),
            draw.integers(size.vocab_size, size.masked),
        ],
        call=lambda kernels, inputs: kernels.linear_cross_entropy(*inputs).loss,
        # What comes in, and its gradients.
        elements=lambda size: 2 * (size.vocab_size + size.masked) * size.width,
        flops=lambda size: 6 * size.masked * size.width * size.vocab_size,
    ),
    Case(
        name="soft_cross_entropy",
        inputs=_two_heads,
        call=_distilled,
        # Both heads, and the gradients of one.
        elements=lambda size: 3 * (size.vocab_size + size.masked) * size.width,
        flops=lambda size: 8 * size.masked * size.width * size.vocab_size,
    ),
)
