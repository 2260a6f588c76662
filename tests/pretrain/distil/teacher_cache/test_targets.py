"""Compressed soft targets give the exact loss, a lower bound, or an unbiased estimate."""

import numpy as np
import pytest
import torch

from data_prep.counter_rng import key_of, uniform
from pretrain.distil.teacher_cache.targets import (
    Kind,
    Targets,
    cached_soft_target_sum,
    sampled_targets,
    top_k_targets,
)
from tests.pretrain.distil.soft_target_reference import soft_target_sum

TOKENS, VOCAB, TEMPERATURE = 6, 50, 2.0


def logits(seed: int, size: float = 3.0) -> torch.Tensor:
    drawn = torch.randn(TOKENS, VOCAB, generator=torch.Generator().manual_seed(seed))
    return size * drawn


def cached(student_MV: torch.Tensor, targets: Targets, kind: Kind) -> torch.Tensor:
    return cached_soft_target_sum(student_MV, targets, kind, TEMPERATURE)


def draw(teacher_MV: torch.Tensor, seed: int, count: int, power: float = 1.0) -> Targets:
    draws = uniform(key_of("test", seed), np.arange(TOKENS * count)).reshape(TOKENS, count)
    return sampled_targets(teacher_MV / TEMPERATURE, torch.from_numpy(draws), power, torch.float32)


def test_full_top_k_matches_fp64() -> None:
    """Targets of the whole vocabulary give the exact divergence and gradient."""
    student = logits(1).requires_grad_()
    loss = cached(student, top_k_targets(logits(2) / TEMPERATURE, VOCAB, torch.float32), "top_k")
    exact = soft_target_sum(student, logits(2), TEMPERATURE)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    (got,), (wanted,) = (torch.autograd.grad(x, student) for x in (loss, exact))
    # Sums of 50 numbers below 1, times T.
    torch.testing.assert_close(got, wanted.float(), rtol=0, atol=1e-6)


def test_float16_error_is_rounding() -> None:
    """Targets in float16 err by the rounding of their probabilities alone."""
    targets = top_k_targets(logits(2) / TEMPERATURE, VOCAB, torch.float16)
    exact = soft_target_sum(logits(1), logits(2), TEMPERATURE).item()
    # Each p is off by 2^-11 of itself; the log ratios are below 10 in size.
    slack = TEMPERATURE**2 * TOKENS * 10 * 2.0**-11
    assert cached(logits(1), targets, "top_k").item() == pytest.approx(exact, abs=slack)


def test_top_k_is_lower_bound() -> None:
    """Merging tokens loses what sets them apart (the log sum inequality), never more."""
    exact = soft_target_sum(logits(1), logits(2), TEMPERATURE).item()
    losses = [
        cached(logits(1), top_k_targets(logits(2) / TEMPERATURE, k, torch.float32), "top_k").item()
        for k in (1, 5, 20, 40, VOCAB)
    ]
    assert losses == sorted(losses)
    assert 0 < losses[0] < 0.9 * exact
    assert losses[-1] == pytest.approx(exact, rel=1e-6)


def test_top_k_matches_merged_vocabulary() -> None:
    """The loss of top_k is the divergence over a vocabulary with all other tokens merged."""
    student, teacher = logits(1), logits(2)
    kept = 7
    ids = (teacher / TEMPERATURE).softmax(-1).topk(kept).indices

    def merged(z: torch.Tensor) -> torch.Tensor:
        p = (z.double() / TEMPERATURE).softmax(dim=-1)
        rest = p.scatter(1, ids, 0.0).sum(dim=-1, keepdim=True)
        return torch.cat([p.gather(1, ids), rest], dim=1)

    p, q = merged(teacher), merged(student)
    wanted = TEMPERATURE**2 * (p * (p / q).log()).sum().item()
    targets = top_k_targets(teacher / TEMPERATURE, kept, torch.float32)
    assert cached(student, targets, "top_k").item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("count", [1, 7, VOCAB])
def test_top_k_zero_at_equality(count: int) -> None:
    """Equal logits give a loss and gradient of 0, for any K."""
    student = logits(2).requires_grad_()
    loss = cached(student, top_k_targets(logits(2) / TEMPERATURE, count, torch.float32), "top_k")
    (gradient,) = torch.autograd.grad(loss, student)
    # Rounding of 50 numbers around 1 in each of six tokens.
    assert abs(loss.item()) < 1e-4 and gradient.abs().max() < 1e-5


@pytest.mark.parametrize("power", [1.0, 0.7])
def test_sampled_targets_unbiased(power: float) -> None:
    """Value and gradient of sampled targets are unbiased."""
    student, teacher = logits(1).requires_grad_(), logits(2)
    exact = soft_target_sum(student, teacher, TEMPERATURE)
    (wanted,) = torch.autograd.grad(exact, student)
    losses, gradients = [], []
    for seed in range(400):
        loss = cached(student, draw(teacher, seed, 12, power), "sampled")
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, student)[0])
    for values, mean in ((torch.stack(losses), exact), (torch.stack(gradients), wanted)):
        error = values.std(dim=0) / len(values) ** 0.5
        apart = (values.mean(dim=0) - mean.detach().float()).abs()
        # Of 300 gradients one is beyond 5 errors once in 6,000 times, and the draws are keyed. A
        # token that was hardly ever drawn has a poor error estimate: a floor of one draw.
        assert (apart <= 5 * error + 5e-3).all()
        assert error.max() < 0.15 * mean.abs().max()  # or the test would be void


def test_draws_invert_cumulative_distribution() -> None:
    """A uniform draw selects the token whose interval of the cumulative distribution it is in."""
    teacher = torch.tensor([0.5, 0.25, 0.25]).log().expand(1, 3)
    draws = torch.tensor([[0.0, 0.49, 0.51, 0.74, 0.76, 1 - 2.0**-53]], dtype=torch.float64)
    targets = sampled_targets(teacher, draws, 1.0, torch.float32)
    assert targets.ids_MK.tolist() == [[0, 0, 1, 1, 2, 2]]
    torch.testing.assert_close(targets.values_MK, torch.full((1, 6), 1 / 6))
    assert targets.rest_M.item() == pytest.approx(0.5 * np.log(0.5) + 0.5 * np.log(0.25))


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
def test_padding_targets_zero_loss(kind: Kind) -> None:
    """Targets of padding have neither loss nor gradient."""
    student = logits(1).requires_grad_()
    none = Targets(torch.zeros(TOKENS, 4, dtype=torch.int64), torch.zeros(TOKENS, 4),
                   torch.zeros(TOKENS))  # fmt: skip
    loss = cached(student, none, kind)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0.0 and not gradient.any()
