"""Soft targets in a few numbers a token: made from a teacher's logits, and learned from.

Both kinds stand for p_T = softmax(z_T / T) and give T² · Σ_m KL(p_T(m) ‖ p_S(m)) of the student:

    top_k      the K largest p_T, and the mass τ of all other words, compared as one bucket:
               Σ_k p log(p / q) + τ log(τ / q_τ). Exact for K = V, else at most the true divergence:
               how the rest is shared out is not taught.
    sampled    K words drawn from r ~ p_T^power with replacement, each of weight p / (K r), and
               Σ p log p: Σ_k w_k (-log q_k) + Σ p log p. Its mean over draws is the true
               divergence, and so is that of its gradient (arXiv 2503.16870).

Shapes: M masked tokens, K words kept or drawn, V vocabulary.
"""

from typing import Literal, NamedTuple

import torch

Kind = Literal["top_k", "sampled"]


class Targets(NamedTuple):
    """What is known of a teacher's answers. All 0 for a token that nothing is asked of.

    Attributes:
        ids_MK: int64, words.
        values_MK: fp32; their probabilities (top_k) or weights (sampled).
        rest_M: fp32; the mass of all other words (top_k), or Σ p log p (sampled).
    """

    ids_MK: torch.Tensor
    values_MK: torch.Tensor
    rest_M: torch.Tensor

    def to(self, device: torch.device) -> "Targets":
        """Copy to a device."""
        return Targets(*(x.to(device, non_blocking=True) for x in self))


def top_targets(logits_MV: torch.Tensor, count: int, number: torch.dtype) -> Targets:
    """Return the largest probabilities, rounded to a type, and what is left of 1.

    Args:
        logits_MV: divided by the temperature.
        count: K.
        number: the type that the probabilities will be stored in.
    """
    shares_MK, ids_MK = logits_MV.float().softmax(dim=-1).topk(count, dim=-1)
    values_MK = shares_MK.to(number).double()
    rest_M = (1.0 - values_MK.sum(dim=-1)).clamp(min=0.0)
    if count == logits_MV.shape[1]:
        rest_M.zero_()  # what rounding leaves belongs to no word
    return Targets(ids_MK, values_MK.float(), rest_M.float())


def sampled_targets(
    logits_MV: torch.Tensor, draws_MK: torch.Tensor, power: float, number: torch.dtype
) -> Targets:
    """Return words drawn from the distribution, and their weights rounded to a type.

    Args:
        logits_MV: divided by the temperature.
        draws_MK: fp64 in [0, 1), which pick the words.
        power: of the probability by which a word is drawn; above 0.
        number: the type that the weights will be stored in.
    """
    words = logits_MV.shape[1]
    log_p_MV = logits_MV.double().log_softmax(dim=-1)
    log_r_MV = (power * log_p_MV).log_softmax(dim=-1)
    steps_MV = log_r_MV.exp().cumsum(dim=-1)
    # The last sum is 1 but for rounding; times it, no draw lies beyond.
    ids_MK = torch.searchsorted(steps_MV, draws_MK * steps_MV[:, -1:], right=True)
    ids_MK = ids_MK.clamp(max=words - 1)
    log_weights_MK = (log_p_MV - log_r_MV).gather(1, ids_MK)
    weights_MK = log_weights_MK.exp() / draws_MK.shape[1]
    entropy_M = torch.xlogy(log_p_MV.exp(), log_p_MV.exp()).sum(dim=-1)
    return Targets(ids_MK, weights_MK.to(number).float(), entropy_M.float())


def cached_soft_target_sum(
    student_logits_MV: torch.Tensor, targets: Targets, kind: Kind, temperature: float
) -> torch.Tensor:
    """Return T² times the summed divergence of the student from stored targets, in fp32.

    Args:
        student_logits_MV: not divided by the temperature.
        targets: on the same device.
        kind: of the targets.
        temperature: T, the one they were made at.
    """
    ids_MK, values_MK, rest_M = targets
    logits_MV = student_logits_MV.float() / temperature
    normaliser_M = logits_MV.logsumexp(dim=-1)
    log_q_MK = logits_MV.gather(1, ids_MK) - normaliser_M[:, None]
    cross_M = -(values_MK * log_q_MK).sum(dim=-1)
    if kind == "sampled":
        return temperature**2 * (cross_M + rest_M).sum()
    entropy_M = torch.xlogy(values_MK, values_MK).sum(dim=-1) + torch.xlogy(rest_M, rest_M)
    if ids_MK.shape[1] < logits_MV.shape[1]:
        others_M = logits_MV.scatter(1, ids_MK, -torch.inf).logsumexp(dim=-1)
        cross_M = cross_M - rest_M * (others_M - normaliser_M)
    return temperature**2 * (cross_M + entropy_M).sum()
