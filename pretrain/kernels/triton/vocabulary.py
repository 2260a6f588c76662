"""Parts of the operations over a vocabulary: an aligned decoder, chunks, products in fp32.

Shapes: M masked tokens, C tokens in a chunk, D width, V vocabulary, P vocabulary with padding.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

BUDGET_BYTES = 256 * 2**20  # of logits: a step of BERT-base takes a few chunks
BLOCK = 4096  # logits that a kernel holds at a time
_ROWS = 64  # a chunk has a multiple of this many tokens: whole tiles of a matrix product
_ALIGNMENT_BYTES = 128  # of a row; NVIDIA's "Matrix Multiplication Background", tensor cores


class Decoder(NamedTuple):
    """A decoder whose vocabulary is padded until a row of logits is a multiple of 128 bytes.

    Tensor cores and vector loads are fast on such rows alone, which a vocabulary like 30,522 does
    not give. The weights of the padding are 0 and its bias is -inf, so a softmax ignores it.
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
        """Return a decoder in `dtype`, aligned for logits of `element_bytes` (default: its own)."""
        missing = -len(weight_VD) % (_ALIGNMENT_BYTES // (element_bytes or dtype.itemsize))
        weight_PD, bias_P = weight_VD.to(dtype), bias_V.float().contiguous()
        if missing:
            weight_PD = F.pad(weight_PD, (0, 0, 0, missing))
            bias_P = F.pad(bias_P, (0, missing), value=-torch.inf)
        return cls(weight_PD, bias_P)


class Gradients(NamedTuple):
    """Gradients of a loss in fp32, multiplied by a scale that suits the type of the products."""

    hidden_MD: torch.Tensor
    weight_PD: torch.Tensor
    bias_P: torch.Tensor

    @classmethod
    def zeros(cls, hidden_MD: torch.Tensor, decoder: Decoder) -> "Gradients":
        """Return zero gradients of the shapes of `hidden_MD` and `decoder`."""
        return cls(*(torch.zeros_like(x, dtype=torch.float32) for x in (hidden_MD, *decoder)))

    def add(
        self, chunk: slice, logits_CP: torch.Tensor, hidden_CD: torch.Tensor, decoder: Decoder
    ) -> None:
        """Accumulate the gradients that follow from those of a chunk's logits.

        `logits_CP`, `hidden_CD` and the decoder have the same type.
        """
        add_product(self.hidden_MD[chunk], logits_CP, decoder.weight_PD)
        add_product(self.weight_PD, logits_CP.t(), hidden_CD)
        self.bias_P.add_(logits_CP.sum(dim=0, dtype=torch.float32))

    def times(
        self, factor: torch.Tensor, dtypes: Sequence[torch.dtype], vocabulary: int
    ) -> Iterator[torch.Tensor]:
        """Yield the gradients of hidden, weight and bias times a factor, in their types.

        They are rounded once: the factor itself may be too small for fp16.
        """
        unpadded = (self.hidden_MD, self.weight_PD[:vocabulary], self.bias_P[:vocabulary])
        for x, dtype in zip(unpadded, dtypes, strict=True):
            yield torch.mul(x, factor, out=torch.empty_like(x, dtype=dtype))


def chunk_rows(tokens: int, row_bytes: int, budget_bytes: int) -> int:
    """Return the number of tokens in a chunk, a multiple of 64.

    The chunks are as few as the budget allows, with at least 64 tokens each whatever the budget,
    and of nearly equal size, because a small last chunk would be inefficient.

    Args:
        tokens: all tokens; may be 0.
        row_bytes: size of the logits of one token.
        budget_bytes: size of the logits of a chunk.
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
def biased(logits, bias, columns, COLUMNS: tl.constexpr):
    """Return logits plus bias in fp32; -inf beyond the row."""
    logit = tl.load(logits + columns, mask=columns < COLUMNS, other=0.0).to(tl.float32)
    return logit + tl.load(bias + columns, mask=columns < COLUMNS, other=float("-inf"))
