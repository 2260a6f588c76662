"""Self-attention over packed rows: a token sees its own sample and nothing else.

Shapes: B rows, T tokens a row, D width, H heads, D/H head width.
"""

import torch
import torch.nn.functional as F
from torch import nn


def same_sample_mask(sample_ids_BT: torch.Tensor) -> torch.Tensor:
    """Return the block-diagonal mask [B, 1, T, T]: true where two places hold the same sample.

    Padding has a sample id of its own, so that no place attends to nothing, which would be NaN.
    """
    return (sample_ids_BT[:, :, None] == sample_ids_BT[:, None, :]).unsqueeze(1)


class SelfAttention(nn.Module):
    """Multi-head attention (arXiv 1706.03762, 3.2) with the parameter names of transformers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, hidden_BTD: torch.Tensor, mask_B1TT: torch.Tensor) -> torch.Tensor:
        """Return the attended values [B, T, D]; attention itself has no dropout."""
        query, key, value = (
            project(hidden_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_B1TT)
        return attended.transpose(1, 2).flatten(2)
