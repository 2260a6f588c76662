"""LAMB: Adam whose update of each tensor is scaled to the norm of that tensor's weights.

After algorithm 2 of arXiv 1904.00962, for the tensor x with gradient g at step t:

    m = b1 m + (1 - b1) g                    r = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
    v = b2 v + (1 - b2) g^2                  x = x - lr * |x| / |r + decay x| * (r + decay x)

The first and second moments are corrected for their start from zero, as the paper does. The trust
ratio |x| / |r + decay x| is taken as it is, without bounds (the paper's phi is the identity), and
is 1 where either norm is 0. Biases and LayerNorm, which do not decay, have no trust ratio: their
step is Adam's, as in the paper's published code (`exclude_from_layer_adaptation`) and in NVIDIA's
(`FusedLAMB` without `use_nvlamb`). Gradients come clipped by their global norm (`optim.clip_norm`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from pretrain.optim.norms import norms_of

_Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class _Partition:
    """The consecutive tensors of a group of which this rank's flat partition holds pieces."""

    tensors: int  # of the whole group, over all ranks
    first: int  # index in the group of the first tensor with a piece here
    pieces: tuple[tuple[int, int], ...]  # start and length of each in the flat partition


class Lamb(torch.optim.Optimizer):
    """LAMB with the trust ratio of each tensor of the model, also where ZeRO partitions them.

    Parameters are whole tensors of the model, unless `partition` declares one to be a rank's flat
    partition of a group. Then each rank sums the squares of its pieces, and one small all-reduce
    per group gives the norms of whole tensors.

    The state of a parameter is `exp_avg`, `exp_avg_sq` and `step`, the names that DeepSpeed's
    universal checkpoints require.

    Args:
        groups: parameter groups; `trust_ratio` false makes the update of a group Adam's.
        lr, betas, eps, weight_decay: defaults for groups without them.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, {**defaults, "trust_ratio": True})
        self._partitions: dict[torch.Tensor, _Partition] = {}

    def partition(self, part: torch.Tensor, pieces: Sequence[tuple[int, int] | None]) -> None:
        """Declare which tensors of a group a rank's flat partition holds (all ranks).

        Args:
            part: the flat parameter [elements] that is the group on this rank.
            pieces: start and length in `part` for every tensor of the group, in the same order on
                all ranks; None for tensors that are wholly on other ranks.

        Raises:
            ValueError: when the tensors on this rank are not consecutive.
        """
        here = [index for index, piece in enumerate(pieces) if piece is not None]
        first = here[0] if here else 0
        if here != list(range(first, first + len(here))):
            raise ValueError(f"the tensors {here} of a partition are not consecutive")
        found = tuple(piece for piece in pieces if piece is not None)
        self._partitions[part] = _Partition(len(pieces), first, found)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the weights (all ranks, with the same groups in the same order)."""
        assert closure is None  # unsupported: DeepSpeed passes none
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._update(weights, group)

    def _update(self, weights: _Tensors, group: dict[str, Any]) -> None:
        updates = self._adam_updates(weights, group)
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        if group["trust_ratio"]:
            self._scale_by_trust(updates, weights)
        torch._foreach_add_(weights, updates, alpha=-group["lr"])

    def _adam_updates(self, weights: _Tensors, group: dict[str, Any]) -> _Tensors:
        """Update the moments, and return r of the module's formula for each parameter."""
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in weights if p.grad is not None]
        states = [self._state_of(p) for p in weights]
        for state in states:
            state["step"] += 1
        step = float(states[0]["step"])  # on the CPU: no device-to-host synchronisation
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        updates = list(torch._foreach_div(squares, 1 - beta2**step))
        torch._foreach_sqrt_(updates)
        torch._foreach_add_(updates, group["eps"])
        torch._foreach_mul_(updates, 1 - beta1**step)
        torch._foreach_reciprocal_(updates)
        torch._foreach_mul_(updates, means)
        return updates

    def _scale_by_trust(self, updates: _Tensors, weights: _Tensors) -> None:
        partition = self._partitions.get(weights[0])
        if partition is None:
            squares = torch.stack([norms_of(weights), norms_of(updates)]).square()
            torch._foreach_mul_(updates, list(_trust_ratios(squares).unbind()))
            return
        (weight,), (update,) = weights, updates  # ZeRO flattens a group to one parameter
        old = [weight.narrow(0, *piece) for piece in partition.pieces]
        new = [update.narrow(0, *piece) for piece in partition.pieces]
        here = slice(partition.first, partition.first + len(old))
        squares = weight.new_zeros(2, partition.tensors)
        if old:
            squares[:, here] = torch.stack([norms_of(old), norms_of(new)]).square()
        # A tensor may be split between ranks, and each must scale its piece by the ratio of the
        # whole tensor. Ranks without a piece take part too, or the all-reduce would hang.
        dist.all_reduce(squares)
        if old:
            torch._foreach_mul_(new, list(_trust_ratios(squares)[here].unbind()))

    def _state_of(self, parameter: torch.Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def _trust_ratios(squares_2T: torch.Tensor) -> torch.Tensor:
    """Return trust ratios [T] from the squared norms of T weights and of their updates."""
    weight_T, update_T = squares_2T.sqrt().unbind()
    usable_T = (weight_T > 0) & (update_T > 0)
    return torch.where(usable_T, weight_T / update_T, 1.0)
