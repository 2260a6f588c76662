"""Losses on logits, computed in chunks of tokens: no tensor holds all tokens and the vocabulary.

A chunk gives its sums and, at once, the gradients of its hidden states and of the decoder; those of
the decoder are added up. Automatic differentiation would keep the logits of every chunk until the
backward pass.
Shapes: M tokens, D width, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch

from pretrain.kernels.soft_cross_entropy import Head
from pretrain.losses.precomputed_grad import with_gradients

BUDGET_BYTES = 512 * 2**20
# Tensors of the size of a chunk's logits that are in memory at once, as measured: logits of both
# models, divided by the temperature too, their distributions and gap, and gradients.
_TENSORS = 11

# Of a head, and of a slice of all tokens whose hidden states it holds.
ComputeSums = Callable[[Head, slice], Sequence[torch.Tensor]]


def rows_of_chunk(vocab_size: int) -> int:
    """Return the number of tokens whose losses fit into the budget, at least 1."""
    return max(1, BUDGET_BYTES // (_TENSORS * torch.float32.itemsize * vocab_size))


def chunk_bytes(tokens: int, vocab_size: int) -> int:
    """Return the memory of the largest chunk of some tokens."""
    rows = min(tokens, rows_of_chunk(vocab_size))
    return _TENSORS * torch.float32.itemsize * rows * vocab_size


def sums_over_chunks(compute: ComputeSums, head: Head) -> list[torch.Tensor]:
    """Return sums over all tokens; the first one is differentiable by the head.

    Tokens that fit into one chunk are left to automatic differentiation.

    Args:
        compute: returns sums over some tokens, scalars; the first one is differentiable.
        head: hidden states of all tokens, and the decoder.
    """
    tokens, rows = len(head.hidden_MD), rows_of_chunk(len(head.bias_V))
    if tokens <= rows:
        return list(compute(head, slice(0, tokens)))
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in head)
    gradients = [torch.zeros(x.shape, dtype=_wide(x), device=x.device) for x in head if needs_grad]
    parts = []
    for chunk in (slice(first, first + rows) for first in range(0, tokens, rows)):
        own = Head(head.hidden_MD[chunk], head.weight_VD, head.bias_V)
        leaves = Head(*(x.detach().requires_grad_(needs_grad) for x in own))
        sums = compute(leaves, chunk)
        if needs_grad:
            of_hidden, *of_decoder = torch.autograd.grad(sums[0], leaves)
            gradients[0][chunk] = of_hidden
            torch._foreach_add_(gradients[1:], of_decoder)
        parts.append(torch.stack([x.detach() for x in sums]))
    total, *others = torch.stack(parts).sum(0).unbind()
    return [with_gradients(total, head, gradients) if needs_grad else total, *others]


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
