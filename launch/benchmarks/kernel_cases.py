"""The fused operations as a training step calls them: inputs, forward and backward pass.

Inputs are drawn alike for every implementation, so that results can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from pretrain.kernels.dispatch import Kernels, choose_kernels
from pretrain.kernels.linear_cross_entropy import CrossEntropy
from pretrain.kernels.soft_cross_entropy import Head

_DROPOUT: dict[str, Any] = {"epsilon": 1e-12, "rate": 0.1}
# Temperature and weights of DistilBERT.
_SOFT: dict[str, Any] = {"temperature": 2.0, "soft_weight": 5.0, "hard_weight": 2.0}
_MASKED_SHARE, _POSITIONS, _ROW_TOKENS = 0.15, 512, 128
Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Size:
    """N tokens, D width, F feed-forward, V vocabulary; M masked tokens."""

    tokens: int
    width: int
    feed_forward: int
    vocab_size: int = 30522

    @property
    def masked(self) -> int:
        """Tokens at which the MLM head runs."""
        return round(_MASKED_SHARE * self.tokens)


class Draw:
    """Random inputs of one case, the same for every implementation.

    Args:
        dtype: that the operation computes in.
        device: of the tensors.
        rounded_to: a type that the inputs are rounded to before, for a reference in fp64.
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

    def norm(self, width: int) -> list[torch.Tensor]:
        """Return weight and bias of a LayerNorm."""
        return [self.normal(width, scale=0.1, mean=1.0), self.normal(width, scale=0.1)]

    def head(self, size: Size) -> list[torch.Tensor]:
        """Return hidden states [M, D] and the decoder's weight [V, D] and bias [V]."""
        return [
            self.normal(size.masked, size.width),
            self.normal(size.vocab_size, size.width, scale=0.02),
            self.normal(size.vocab_size, scale=0.02),
        ]

    def labels(self, size: Size) -> torch.Tensor:
        """Return labels [M]."""
        return self.integers(size.vocab_size, size.masked)

    def dropout_keys(self, tokens: int) -> torch.Tensor:
        """Return the dropout keys of rows of 128 tokens, int32 [B, 2]."""
        return self.integers(2**31, 2 * (tokens // _ROW_TOKENS)).int().view(-1, 2)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation, forward and backward.

    Attributes:
        name: of the field of `Kernels`.
        inputs: draws its arguments.
        call: runs it.
        elements: those that any implementation must read and write.
        flops: of its matrix products.
    """

    name: str
    inputs: Callable[[Size, Draw], Tensors]
    call: Callable[[Kernels, Tensors], torch.Tensor]
    elements: Callable[[Size], int]
    flops: Callable[[Size], int] = lambda size: 0

    def prepare(
        self, kernels: Kernels, size: Size, dtype: torch.dtype, device: torch.device,
        rounded_to: torch.dtype | None = None,
    ) -> Callable[[], list[torch.Tensor]]:  # fmt: skip
        """Return the forward and backward pass, which returns the output and all gradients."""
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
    """Return operations that compute in the precision of their inputs, for references in fp64."""
    plain = choose_kernels("reference", "reference", torch.device("cpu"))
    return replace(plain, linear_cross_entropy=_exact_cross_entropy)


def _exact_cross_entropy(
    hidden_MD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor, labels_M: torch.Tensor
) -> CrossEntropy:
    # The reference computes in fp32, whatever its inputs are.
    logits_MV = F.linear(hidden_MD, weight_VD, bias_V)
    loss = F.cross_entropy(logits_MV, labels_M, reduction="sum")
    return CrossEntropy(loss, (logits_MV.argmax(-1) == labels_M).sum())


def _embedding_inputs(size: Size, draw: Draw) -> Tensors:
    rows = (size.vocab_size, 2, _POSITIONS)  # of the tables of tokens, types and positions
    ids = [draw.integers(count, size.tokens) for count in rows]
    tables = [draw.normal(count, size.width, scale=0.02) for count in rows]
    return [*ids, *tables, *draw.norm(size.width), draw.dropout_keys(size.tokens)]


def _two_heads(size: Size, draw: Draw) -> Tensors:
    student, teacher = draw.head(size), draw.head(size)
    return [*student, *(tensor.detach() for tensor in teacher), draw.labels(size)]


CASES = (
    Case(
        name="bias_gelu",
        inputs=lambda size, draw: [
            draw.normal(size.tokens, size.feed_forward),
            draw.normal(size.feed_forward),
        ],
        call=lambda kernels, x: kernels.bias_gelu(*x),
        # x and y; x, the gradients of y and x.
        elements=lambda size: 5 * size.tokens * size.feed_forward,
    ),
    Case(
        name="residual_norm",
        inputs=lambda size, draw: [
            draw.normal(size.tokens, size.width),
            draw.normal(size.width, scale=0.1),
            draw.normal(size.tokens, size.width),
            *draw.norm(size.width),
            draw.dropout_keys(size.tokens),
        ],
        call=lambda kernels, x: kernels.residual_norm(*x[:-1], keys_B2=x[-1], **_DROPOUT),
        # Two inputs and the output; one of these, its gradient and those of both inputs.
        elements=lambda size: 7 * size.tokens * size.width,
    ),
    Case(
        name="embedding_norm",
        inputs=_embedding_inputs,
        call=lambda kernels, x: kernels.embedding_norm(*x[:-1], keys_B2=x[-1], **_DROPOUT),
        # Rows of the token table and the output; rows, its gradient; the table's gradient.
        elements=lambda size: (4 * size.tokens + size.vocab_size) * size.width,
    ),
    Case(
        name="linear_cross_entropy",
        inputs=lambda size, draw: [*draw.head(size), draw.labels(size)],
        call=lambda kernels, x: kernels.linear_cross_entropy(*x).loss,
        # The inputs and their gradients.
        elements=lambda size: 2 * (size.vocab_size + size.masked) * size.width,
        flops=lambda size: 6 * size.masked * size.width * size.vocab_size,
    ),
    Case(
        name="soft_cross_entropy",
        inputs=_two_heads,
        call=lambda kernels, x: (
            kernels.soft_cross_entropy(Head(*x[:3]), Head(*x[3:6]), x[6], **_SOFT).total
        ),
        # Both heads, and the gradients of one.
        elements=lambda size: 3 * (size.vocab_size + size.masked) * size.width,
        flops=lambda size: 8 * size.masked * size.width * size.vocab_size,
    ),
)
