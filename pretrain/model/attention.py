"""Self-attention over packed rows: each token attends to its own sample alone.

`varlen` passes the cu_seqlens of the samples to FlashAttention, which skips all other pairs; it
needs a GPU and bf16 or fp16. `sdpa` masks every row block-diagonally, in any precision on any
device.
Shapes: N tokens with padding, B rows of T tokens, D width, H heads, d = D/H head width,
C sequences.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import activate_flash_attention_impl
from torch.nn.attention.varlen import varlen_attn

from data_prep.errors import UserError
from pretrain.model.captured_states import Projected

Attention = Literal["varlen", "sdpa"]
_OLDEST_GPU = (8, 0)  # NVIDIA's Ampere, the oldest that FlashAttention supports


class Packing(NamedTuple):
    """Which positions attend to each other: built once per forward pass, for all layers."""

    row_tokens: int  # T, at least the length of the longest sequence
    cu_seqlens: torch.Tensor | None  # [C + 1] int32, cumulative sequence lengths; `varlen` only
    mask_B1TT: torch.Tensor | None  # true where two positions attend to each other; `sdpa` only


def make_packing(
    attention: Attention, cu_seqlens: torch.Tensor, sample_ids_N: torch.Tensor, row_tokens: int
) -> Packing:
    """Return the packing of a batch.

    Padding forms sequences of its own: a position that attended to none would be NaN.
    """
    if attention == "varlen":
        # Dynamic, so that another number of sequences does not recompile the layers.
        torch._dynamo.maybe_mark_dynamic(cu_seqlens, 0)
        return Packing(row_tokens, cu_seqlens, None)
    ids_BT = sample_ids_N.view(-1, row_tokens)
    mask_B1TT = (ids_BT[:, :, None] == ids_BT[:, None, :]).unsqueeze(1)
    return Packing(row_tokens, None, mask_B1TT)


def choose_attention(
    requested: Literal["auto", "varlen", "sdpa"],
    device: torch.device,
    precision: str,
    head_width: int,
) -> Attention:
    """Return the attention of a run; `auto` is `varlen` wherever it is possible.

    Raises:
        UserError: when `varlen` is requested where it is impossible.
    """
    missing = _missing_for_varlen(device, precision, head_width)
    if requested == "varlen" and missing is not None:
        raise UserError(f"kernels.attention varlen needs {missing}: choose auto or sdpa.")
    if requested == "sdpa":
        return "sdpa"
    return "varlen" if missing is None else "sdpa"


def _missing_for_varlen(device: torch.device, precision: str, head_width: int) -> str | None:
    """Return the requirement of FlashAttention that a run does not meet, or None."""
    if device.type != "cuda" or precision == "fp32":
        return f"a GPU and bf16 or fp16, but the run computes in {precision} on {device.type}"
    if head_width % 8 or head_width > 256:
        return f"heads of a multiple of 8 and at most 256, but these are {head_width} wide"
    if (capability := torch.cuda.get_device_capability(device)) < _OLDEST_GPU:
        return "a GPU of compute capability 8.0, but this one has {}.{}".format(*capability)
    return None


def activate_flash(version: Literal["builtin", "FA3", "FA4"]) -> None:
    """Make `varlen` use another FlashAttention than torch's own.

    Raises:
        UserError: when it is not installed, or this torch does not support it.
    """
    if version == "builtin":
        return
    try:
        activate_flash_attention_impl(version)
    except (ImportError, RuntimeError, ValueError) as error:
        raise UserError(
            f"kernels.flash {version} cannot be used ({error}): install it, or choose builtin."
        ) from error


def packed_attention(
    query_NHd: torch.Tensor, key_NHd: torch.Tensor, value_NHd: torch.Tensor, packing: Packing
) -> torch.Tensor:
    """Return softmax(query key' / sqrt(d)) value within each sequence, [N, H, d]; no dropout."""
    if packing.cu_seqlens is not None:
        varlen = varlen_attn(
            query_NHd, key_NHd, value_NHd,
            packing.cu_seqlens, packing.cu_seqlens, packing.row_tokens, packing.row_tokens,
        )  # fmt: skip
        assert isinstance(varlen, torch.Tensor)  # a tuple only if the log-sum-exp is requested too
        return varlen
    rows = (-1, packing.row_tokens, *query_NHd.shape[1:])
    query, key, value = (x.view(rows).transpose(1, 2) for x in (query_NHd, key_NHd, value_NHd))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=packing.mask_B1TT)
    return attended.transpose(1, 2).flatten(0, 1)


class SelfAttention(nn.Module):
    """Multi-head attention (arXiv 1706.03762, 3.2) with the parameter names of transformers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(
        self, hidden_ND: torch.Tensor, packing: Packing, return_projections: bool
    ) -> tuple[torch.Tensor, Projected | None]:
        """Return the attended values [N, D], and the projections [N, D] if requested."""
        projections = (self.query, self.key, self.value)
        # One product of three times the width uses a GPU better than three products.
        weight = torch.cat([projection.weight for projection in projections])
        bias = torch.cat([projection.bias for projection in projections])
        projected = F.linear(hidden_ND, weight, bias).view(len(hidden_ND), 3, self.heads, -1)
        query, key, value = projected.unbind(1)
        attended_ND = packed_attention(query, key, value, packing).flatten(1)
        if not return_projections:
            return attended_ND, None
        return attended_ND, Projected(query.flatten(1), key.flatten(1), value.flatten(1))
