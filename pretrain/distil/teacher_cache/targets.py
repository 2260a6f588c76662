"""Compressed soft targets: a few numbers per token, from the teacher's logits, and their loss.

Both kinds approximate p_T = softmax(z_T / T) and the loss T² · Σ_m KL(p_T(m) ‖ p_S(m)):

    top_k      the K largest p_T, and the mass τ of all other tokens, compared as one bucket:
               Σ_k p log(p / q) + τ log(τ / q_τ). Exact for K = V, else a lower bound (log sum
               inequality): the distribution within the bucket is not compared.
    sampled    K tokens drawn from r ~ p_T^power with replacement, each of weight p / (K r), and
               Σ p log p: Σ_k w_k (-log q_k) + Σ p log p. Unbiased in value and gradient
               (arXiv 2503.16870).

Shapes: M masked tokens, K entries stored or drawn, V vocabulary.
"""

from typing import Literal, NamedTuple

import torch

Kind = Literal["top_k", "sampled"]


class Targets(NamedTuple):
    """Compressed soft targets. All are 0 for the padding of the list of masked tokens.

    Attributes:
        ids_MK: int64, token ids.
        values_MK: fp32; their probabilities (top_k) or weights (sampled).
        rest_M: fp32; the mass of all other tokens (top_k), or Σ p log p (sampled).
    """

    ids_MK: torch.Tensor
    values_MK: torch.Tensor
    rest_M: torch.Tensor

    def to(self, device: torch.device) -> "Targets":
        """Copy to a device."""
        return Targets(*(x.to(device, non_blocking=True) for x in self))


def top_k_targets(logits_MV: torch.Tensor, count: int, number: torch.dtype) -> Targets:
    """Return the largest probabilities, rounded to a dtype, and the remaining mass.

    Args:
        logits_MV: divided by the temperature.
        count: K.
        number: dtype in which the probabilities will be stored.
    """
    probabilities_MK, ids_MK = logits_MV.float().softmax(dim=-1).topk(count, dim=-1)
    values_MK = probabilities_MK.to(number).double()
    rest_M = (1.0 - values_MK.sum(dim=-1)).clamp(min=0.0)
    if count == logits_MV.shape[1]:
        rest_M.zero_()  # the remainder of rounding belongs to no token
    return Targets(ids_MK, values_MK.float(), rest_M.float())


def sampled_targets(
    logits_MV: torch.Tensor, draws_MK: torch.Tensor, power: float, number: torch.dtype
) -> Targets:
    """Return tokens drawn from the distribution, and their weights rounded to a dtype.

    Args:
        logits_MV: divided by the temperature.
        draws_MK: uniform draws, fp64 in [0, 1).
        power: exponent of the probability by which a token is drawn; above 0.
        number: dtype in which the weights will be stored.
    """
    vocab_size = logits_MV.shape[1]
    log_p_MV = logits_MV.double().log_softmax(dim=-1)
    log_r_MV = (power * log_p_MV).log_softmax(dim=-1)
    cumulative_MV = log_r_MV.exp().cumsum(dim=-1)
    # The last sum is 1 but for rounding; scaled by it, no draw lies beyond.
    ids_MK = torch.searchsorted(cumulative_MV, draws_MK * cumulative_MV[:, -1:], right=True)
    ids_MK = ids_MK.clamp(max=vocab_size - 1)
    log_weights_MK = (log_p_MV - log_r_MV).gather(1, ids_MK)
    weights_MK = log_weights_MK.exp() / draws_MK.shape[1]
    negative_entropy_M = torch.xlogy(log_p_MV.exp(), log_p_MV.exp()).sum(dim=-1)
    return Targets(ids_MK, weights_MK.to(number).float(), negative_entropy_M.float())


def cached_soft_target_sum(
    student_logits_MV: torch.Tensor, targets: Targets, kind: Kind, temperature: float
) -> torch.Tensor:
    """Return T² times the summed divergence from cached targets to the student, in fp32.

    Args:
        student_logits_MV: not divided by the temperature.
        targets: on the same device.
        kind: of the targets.
        temperature: T of the targets.
    """
    ids_MK, values_MK, rest_M = targets
    logits_MV = student_logits_MV.float() / temperature
    normaliser_M = logits_MV.logsumexp(dim=-1)
    log_q_MK = logits_MV.gather(1, ids_MK) - normaliser_M[:, None]
    cross_entropy_M = -(values_MK * log_q_MK).sum(dim=-1)
    if kind == "sampled":
        return temperature**2 * (cross_entropy_M + rest_M).sum()
    negative_entropy_M = torch.xlogy(values_MK, values_MK).sum(dim=-1)
    negative_entropy_M = negative_entropy_M + torch.xlogy(rest_M, rest_M)
    if ids_MK.shape[1] < logits_MV.shape[1]:
        others_M = logits_MV.scatter(1, ids_MK, -torch.inf).logsumexp(dim=-1)
        cross_entropy_M = cross_entropy_M - rest_M * (others_M - normaliser_M)
    return temperature**2 * (cross_entropy_M + negative_entropy_M).sum()
