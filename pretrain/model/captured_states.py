"""Hidden states and attention projections that a forward pass returns beside its predictions.

Distillation losses compare them between models. Index 0 is the output of the embeddings, index l
that of layer l. The requested states are fixed before the pass, so that no others are stored or
compiled.
Shapes: N tokens with padding, D width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch


class Projected(NamedTuple):
    """The projections of one layer's attention, all heads side by side."""

    query_ND: torch.Tensor
    key_ND: torch.Tensor
    value_ND: torch.Tensor


class States(NamedTuple):
    """The captured states, by layer."""

    hidden: dict[int, torch.Tensor]  # [N, D]; for the last layer, after the final LayerNorm
    attention: dict[int, Projected]


def no_states() -> States:
    """Return states of no layers."""
    return States({}, {})


@dataclass(frozen=True, kw_only=True)
class Capture:
    """The layers whose hidden states and attention projections a forward pass returns."""

    hidden: frozenset[int] = frozenset()  # of 0 to the number of layers
    attention: frozenset[int] = frozenset()  # of 1 to the number of layers

    @property
    def last(self) -> int:
        """The highest layer to compute."""
        return max(self.hidden | self.attention, default=0)


NO_CAPTURE = Capture()
