"""LAMB: Adam whose step has, in every tensor of the model, the size of that tensor's weights.

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

_Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class _Partition:
    """The tensors of a group that lie in this rank's part of it: a run of neighbours."""

    tensors: int  # of the whole group, over all ranks
    first: int  # number of the first one here
    pieces: tuple[tuple[int, int], ...]  # begin and length of each in the flat part


class Lamb(torch.optim.Optimizer):
    """LAMB that knows where each tensor of the model lies, also where ZeRO has cut them.

    Its parameters are whole tensors of the model until `partition` says that one is a rank's part
    of a flattened group. Then each rank adds up the squares of its pieces, and the norms of whole
    tensors come from one small all-reduce a group.

    State of a parameter: `exp_avg`, `exp_avg_sq` and `step`, the names that DeepSpeed's universal
    checkpoints look for.

    Args:
        groups: parameter groups; `trust_ratio` false makes the step of a group Adam's.
        lr, betas, eps, weight_decay: for groups that do not say.
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
        """Say which tensors of a group lie in a rank's flat part of it (all ranks).

        Args:
            part: the flat parameter [elements] that the group consists of on this rank.
            pieces: begin and length in `part` for every tensor of the group, in an order that is
                the same on all ranks; None for those that lie wholly on others.
        """
        here = [index for index, piece in enumerate(pieces) if piece is not None]
        first = here[0] if here else 0
        if here != list(range(first, first + len(here))):
            raise ValueError(f"the tensors {here} of a partition are no neighbours")
        found = tuple(piece for piece in pieces if piece is not None)
        self._partitions[part] = _Partition(len(pieces), first, found)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the weights once (all ranks, with the same groups in the same order)."""
        assert closure is None  # DeepSpeed has none, and neither have we
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._move(weights, group)

    def _move(self, weights: _Tensors, group: dict[str, Any]) -> None:
        updates = self._adam_updates(weights, group)
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        if group["trust_ratio"]:
            self._scale_by_trust(updates, weights)
        torch._foreach_add_(weights, updates, alpha=-group["lr"])

    def _adam_updates(self, weights: _Tensors, group: dict[str, Any]) -> _Tensors:
        """Update the moments, and return r of the formula above for each parameter."""
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in weights if p.grad is not None]
        states = [self._state_of(p) for p in weights]
        for state in states:
            state["step"] += 1
        step = float(states[0]["step"])  # it lies on the CPU, so nothing waits for the device
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
            squares = torch.stack([_squares(weights), _squares(updates)])
            torch._foreach_mul_(updates, list(_trust_ratios(squares).unbind()))
            return
        (weight,), (update,) = weights, updates  # ZeRO makes one flat parameter of a group
        old = [weight.narrow(0, *piece) for piece in partition.pieces]
        new = [update.narrow(0, *piece) for piece in partition.pieces]
        here = slice(partition.first, partition.first + len(old))
        squares = weight.new_zeros(2, partition.tensors)
        if old:
            squares[:, here] = torch.stack([_squares(old), _squares(new)])
        # A tensor may be cut between ranks, and every rank must scale its piece by the ratio of
        # the whole. Ranks with no piece at all take part, or the others would wait for ever.
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


def _squares(tensors: _Tensors) -> torch.Tensor:
    """Return the sum of squares of each tensor [tensors], without a look at it on the host."""
    return torch.stack(torch._foreach_norm(tensors)).square()


def _trust_ratios(squares_2T: torch.Tensor) -> torch.Tensor:
    """Return the ratio of each tensor [T] from its squared norms: of the weights, of the update."""
    weight_T, update_T = squares_2T.sqrt().unbind()
    usable_T = (weight_T > 0) & (update_T > 0)
    return torch.where(usable_T, weight_T / update_T, 1.0)
