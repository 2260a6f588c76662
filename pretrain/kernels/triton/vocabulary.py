"""What operations over a whole vocabulary share: an aligned decoder, chunks, products in fp32.

Shapes: M masked tokens, C tokens of a chunk, D width, V vocabulary, P vocabulary with padding.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

BUDGET_BYTES = 256 * 2**20  # a few chunks in a step of BERT-base, each of thousands of tokens
BLOCK = 4096  # logits that a kernel holds at a time
_ROWS = 64  # a chunk has a multiple of this many tokens: whole tiles of a matrix product
_ALIGNMENT_BYTES = 128  # of a row; NVIDIA's "Matrix Multiplication Background", tensor cores


class Decoder(NamedTuple):
    """A decoder with words added until a row of logits is a multiple of 128 bytes.

    Tensor cores and vector loads are fast on such rows alone, and a vocabulary like 30,522 gives
    none. The weights of what is added are 0 and its bias is -inf: no softmax notices it.
    """

    weight_PD: torch.Tensor  # in the type of the products
    bias_P: torch.Tensor  # fp32

    @classmethod
    def aligned(
        cls,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor,
        dtype: torch.dtype,
        element_bytes: int | None = None,
    ) -> "Decoder":
        """Return a decoder in a type, aligned for logits of so many bytes; the type's if None."""
        missing = -len(weight_VD) % (_ALIGNMENT_BYTES // (element_bytes or dtype.itemsize))
        weight_PD, bias_P = weight_VD.to(dtype), bias_V.float().contiguous()
        if missing:
            weight_PD = F.pad(weight_PD, (0, 0, 0, missing))
            bias_P = F.pad(bias_P, (0, missing), value=-torch.inf)
        return cls(weight_PD, bias_P)


class Gradients(NamedTuple):
    """Gradients of a loss, in fp32 and times a scale that suits the type of the products."""

    hidden_MD: torch.Tensor
    weight_PD: torch.Tensor
    bias_P: torch.Tensor

    @classmethod
    def zeros(cls, hidden_MD: torch.Tensor, decoder: Decoder) -> "Gradients":
        """Return gradients to add to."""
        return cls(*(torch.zeros_like(x, dtype=torch.float32) for x in (hidden_MD, *decoder)))

    def add(
        self, chunk: slice, logits_CP: torch.Tensor, hidden_CD: torch.Tensor, decoder: Decoder
    ) -> None:
        """Add what the gradient of a chunk's logits brings; all but the sums has one type."""
        add_product(self.hidden_MD[chunk], logits_CP, decoder.weight_PD)
        add_product(self.weight_PD, logits_CP.t(), hidden_CD)
        self.bias_P.add_(logits_CP.sum(dim=0, dtype=torch.float32))

    def times(
        self, factor: torch.Tensor, dtypes: Sequence[torch.dtype], vocabulary: int
    ) -> Iterator[torch.Tensor]:
        """Yield the gradients of hidden, weight and bias times a factor, in their types.

        They are rounded once: the factor itself may be too small for fp16.
        """
        kept = (self.hidden_MD, self.weight_PD[:vocabulary], self.bias_P[:vocabulary])
        for x, dtype in zip(kept, dtypes, strict=True):
            yield torch.mul(x, factor, out=torch.empty_like(x, dtype=dtype))


def chunk_rows(tokens: int, row_bytes: int, budget_bytes: int) -> int:
    """Return how many tokens a chunk holds, a multiple of 64.

    As many as the budget has room for but never fewer than 64, which no budget forbids; and shared
    out evenly, because a small last chunk takes longer than its share.

    Args:
        tokens: of all chunks together; may be 0.
        row_bytes: of the logits of one token.
        budget_bytes: of the logits of a chunk.
    """
    most = max(budget_bytes // row_bytes // _ROWS, 1) * _ROWS
    chunks = max(triton.cdiv(tokens, most), 1)
    return max(triton.cdiv(triton.cdiv(tokens, chunks), _ROWS), 1) * _ROWS


def write_product(result: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Write `left @ right` to an fp32 tensor, without rounding it to a smaller type."""
    if left.is_cuda and left.dtype != torch.float32:
        torch.mm(left, right, out_dtype=torch.float32, out=result)
    else:  # the CPU has no such product
        torch.mm(left.float(), right.float(), out=result)


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add `left @ right` to an fp32 tensor, without rounding the product to a smaller type."""
    if left.is_cuda and left.dtype != torch.float32:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:  # the CPU has no such product
        total.addmm_(left.float(), right.float())


@triton.jit
def biased(logits, bias, place, COLUMNS: tl.constexpr):
    """Return logits with their bias in fp32; beyond the row -inf, which adds nothing."""
    logit = tl.load(logits + place, mask=place < COLUMNS, other=0.0).to(tl.float32)
    return logit + tl.load(bias + place, mask=place < COLUMNS, other=float("-inf"))
