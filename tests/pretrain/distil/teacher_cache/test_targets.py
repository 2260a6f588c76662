"""Stored targets stand for the teacher's distribution: exactly, from below, or on average."""

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

TOKENS, WORDS, TEMPERATURE = 6, 50, 2.0


def logits(seed: int, size: float = 3.0) -> torch.Tensor:
    drawn = torch.randn(TOKENS, WORDS, generator=torch.Generator().manual_seed(seed))
    return size * drawn


def stored(student_MV: torch.Tensor, targets: Targets, kind: Kind) -> torch.Tensor:
    return cached_soft_target_sum(student_MV, targets, kind, TEMPERATURE)


def draw(teacher_MV: torch.Tensor, seed: int, count: int, power: float = 1.0) -> Targets:
    draws = uniform(key_of("test", seed), np.arange(TOKENS * count)).reshape(TOKENS, count)
    return sampled_targets(teacher_MV / TEMPERATURE, torch.from_numpy(draws), power, torch.float32)


def test_all_words_give_the_divergence_and_gradient_of_the_teacher_itself() -> None:
    student = logits(1).requires_grad_()
    loss = stored(student, top_k_targets(logits(2) / TEMPERATURE, WORDS, torch.float32), "top_k")
    exact = soft_target_sum(student, logits(2), TEMPERATURE)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    (got,), (wanted,) = (torch.autograd.grad(x, student) for x in (loss, exact))
    # Sums of 50 numbers below 1, times T.
    torch.testing.assert_close(got, wanted.float(), rtol=0, atol=1e-6)


def test_float16_errs_by_its_rounding_alone() -> None:
    targets = top_k_targets(logits(2) / TEMPERATURE, WORDS, torch.float16)
    exact = soft_target_sum(logits(1), logits(2), TEMPERATURE).item()
    # Each p is off by 2^-11 of itself; the log ratios are below 10 in size.
    slack = TEMPERATURE**2 * TOKENS * 10 * 2.0**-11
    assert stored(logits(1), targets, "top_k").item() == pytest.approx(exact, abs=slack)


def test_the_bucket_of_other_words_bounds_the_divergence_from_below() -> None:
    """Merging words loses what sets them apart (the log sum inequality), never more."""
    exact = soft_target_sum(logits(1), logits(2), TEMPERATURE).item()
    losses = [
        stored(logits(1), top_k_targets(logits(2) / TEMPERATURE, k, torch.float32), "top_k").item()
        for k in (1, 5, 20, 40, WORDS)
    ]
    assert losses == sorted(losses)
    assert 0 < losses[0] < 0.9 * exact
    assert losses[-1] == pytest.approx(exact, rel=1e-6)


def test_the_bucket_is_the_divergence_over_a_merged_vocabulary() -> None:
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
    assert stored(student, targets, "top_k").item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("count", [1, 7, WORDS])
def test_a_student_that_agrees_has_nothing_to_learn_from_top_words(count: int) -> None:
    student = logits(2).requires_grad_()
    loss = stored(student, top_k_targets(logits(2) / TEMPERATURE, count, torch.float32), "top_k")
    (gradient,) = torch.autograd.grad(loss, student)
    # Rounding of 50 numbers around 1 in each of six tokens.
    assert abs(loss.item()) < 1e-4 and gradient.abs().max() < 1e-5


@pytest.mark.parametrize("power", [1.0, 0.7])
def test_drawn_words_are_right_on_average(power: float) -> None:
    student, teacher = logits(1).requires_grad_(), logits(2)
    exact = soft_target_sum(student, teacher, TEMPERATURE)
    (wanted,) = torch.autograd.grad(exact, student)
    losses, gradients = [], []
    for seed in range(400):
        loss = stored(student, draw(teacher, seed, 12, power), "sampled")
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, student)[0])
    for values, mean in ((torch.stack(losses), exact), (torch.stack(gradients), wanted)):
        error = values.std(dim=0) / len(values) ** 0.5
        apart = (values.mean(dim=0) - mean.detach().float()).abs()
        # Of 300 gradients one is beyond 5 errors once in 6,000 times, and the draws are keyed. A
        # word that was hardly ever drawn tells little of its own error: a floor of one draw.
        assert (apart <= 5 * error + 5e-3).all()
        assert error.max() < 0.15 * mean.abs().max()  # or it would show nothing


def test_a_draw_takes_the_word_whose_share_it_falls_in() -> None:
    teacher = torch.tensor([0.5, 0.25, 0.25]).log().expand(1, 3)
    draws = torch.tensor([[0.0, 0.49, 0.51, 0.74, 0.76, 1 - 2.0**-53]], dtype=torch.float64)
    targets = sampled_targets(teacher, draws, 1.0, torch.float32)
    assert targets.ids_MK.tolist() == [[0, 0, 1, 1, 2, 2]]
    torch.testing.assert_close(targets.values_MK, torch.full((1, 6), 1 / 6))
    assert targets.rest_M.item() == pytest.approx(0.5 * np.log(0.5) + 0.5 * np.log(0.25))


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
def test_what_fills_a_list_up_teaches_nothing(kind: Kind) -> None:
    student = logits(1).requires_grad_()
    none = Targets(torch.zeros(TOKENS, 4, dtype=torch.int64), torch.zeros(TOKENS, 4),
                   torch.zeros(TOKENS))  # fmt: skip
    loss = stored(student, none, kind)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0.0 and not gradient.any()
