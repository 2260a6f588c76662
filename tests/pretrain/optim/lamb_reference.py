"""LAMB by algorithm 2 of arXiv 1904.00962, tensor by tensor in fp64."""

from dataclasses import dataclass, field

import torch


@dataclass(kw_only=True)
class LambReference:
    """One tensor of a model and its moments; `adapted`: whether it has a trust ratio."""

    weight: torch.Tensor
    decay: float
    adapted: bool
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    steps: int = 0
    mean: torch.Tensor = field(init=False)
    square: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.weight = self.weight.double()
        self.mean = torch.zeros_like(self.weight)
        self.square = torch.zeros_like(self.weight)

    def step(self, gradient: torch.Tensor, rate: float) -> None:
        """Update once with a gradient that is already clipped."""
        gradient = gradient.double()
        self.steps += 1
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * gradient
        self.square = self.beta2 * self.square + (1 - self.beta2) * gradient**2
        corrected_mean = self.mean / (1 - self.beta1**self.steps)
        corrected_square = self.square / (1 - self.beta2**self.steps)
        update = corrected_mean / (corrected_square.sqrt() + self.epsilon)
        update = update + self.decay * self.weight
        ratio = 1.0
        if self.adapted and self.weight.norm() > 0 and update.norm() > 0:
            ratio = float(self.weight.norm() / update.norm())
        self.weight = self.weight - rate * ratio * update
