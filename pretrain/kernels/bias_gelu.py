"""Bias and GELU in one pass: the end of the widening half of a feed-forward block.

gelu(x) = x · Φ(x), the exact form, as in BERT (arXiv 1606.08415).
Shapes: N tokens, F width.
"""

import torch
import torch.nn.functional as F


def bias_gelu(x_NF: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
    """Return gelu(x + bias), [N, F]."""
    return F.gelu(x_NF + bias_F)
