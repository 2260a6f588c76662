"""What a model hands out beside its predictions: states of layers, for those who compare models.

Layers are counted as their outputs are: 0 is the embeddings, l what layer l makes of them. What is
asked for is fixed before the pass, so nothing is kept or compiled that nobody reads.
Shapes: N places, D width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch


class Projected(NamedTuple):
    """What a layer's attention compares and mixes, all its heads side by side."""

    query_ND: torch.Tensor
    key_ND: torch.Tensor
    value_ND: torch.Tensor


class States(NamedTuple):
    """What was asked for, by layer."""

    hidden: dict[int, torch.Tensor]  # [N, D]; the last layer's after the norm that ends a stack
    attention: dict[int, Projected]


def no_states() -> States:
    """Return states of no layers."""
    return States({}, {})


@dataclass(frozen=True, kw_only=True)
class Capture:
    """A request: hidden states after some layers, and the projections within some."""

    hidden: frozenset[int] = frozenset()  # 0 to the number of layers
    attention: frozenset[int] = frozenset()  # 1 to the number of layers

    @property
    def last(self) -> int:
        """The highest layer that is needed."""
        return max(self.hidden | self.attention, default=0)


NO_CAPTURE = Capture()
