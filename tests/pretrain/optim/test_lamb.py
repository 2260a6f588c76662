"""LAMB equals the paper's algorithm, with whole tensors and with a flat ZeRO partition."""

import copy

import pytest
import torch

from pretrain.distributed import Cluster
from pretrain.optim.lamb import Lamb
from tests.pretrain.optim.lamb_reference import LambReference

SHAPES = [(7, 5), (64, 3), (3,), (11, 2)]
RATES = [0.01, 0.02, 0.03, 0.015]
# Five operations an element and two norms a tensor in fp32, each right to 2^-24 or a few times
# that, over four steps that move a weight by some hundredths of itself.
CLOSE = {"rtol": 2e-6, "atol": 1e-7}


def draw(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def references(*, decay: float, adapted: bool) -> list[LambReference]:
    return [LambReference(weight=weight, decay=decay, adapted=adapted) for weight in draw(0)]


def train(optimizer: Lamb, weights: list[torch.Tensor], first: int = 0, last: int = 4) -> None:
    for step in range(first, last):
        for weight, gradient in zip(weights, draw(step + 1), strict=True):
            weight.grad = gradient
        optimizer.param_groups[0]["lr"] = RATES[step]
        optimizer.step()


@pytest.mark.parametrize(
    ("decay", "adapted"), [(0.01, True), (0.0, True), (0.0, False), (0.3, False)]
)
def test_lamb_matches_paper_algorithm(decay: float, adapted: bool) -> None:
    """Updates of whole tensors equal those of the paper's algorithm in fp64."""
    weights = draw(0)
    optimizer = Lamb([{"params": weights, "weight_decay": decay, "trust_ratio": adapted}])
    expected = references(decay=decay, adapted=adapted)
    train(optimizer, weights)
    for step, rate in enumerate(RATES):
        for reference, gradient in zip(expected, draw(step + 1), strict=True):
            reference.step(gradient, rate)
    for weight, reference in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.double(), reference.weight, **CLOSE)


def test_lamb_flat_partition_matches_whole_tensors(alone: Cluster) -> None:
    """A flat partition is updated like whole tensors, and its padding stays zero."""
    flat = torch.cat([*(weight.flatten() for weight in draw(0)), torch.zeros(5)])
    optimizer = Lamb([{"params": [flat], "weight_decay": 0.01}])
    lengths = [weight.numel() for weight in draw(0)]
    begins = [sum(lengths[:index]) for index in range(len(lengths))]
    # The first tensor of the group is wholly on another rank.
    optimizer.partition(flat, [None, *zip(begins, lengths, strict=True)])
    whole = draw(0)
    train(Lamb([{"params": whole, "weight_decay": 0.01}]), whole)
    for step, rate in enumerate(RATES):
        flat.grad = torch.cat([*(g.flatten() for g in draw(step + 1)), torch.zeros(5)])
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    expected = torch.cat([*(weight.flatten() for weight in whole), torch.zeros(5)])
    torch.testing.assert_close(flat, expected, **CLOSE)
    assert torch.equal(flat[-5:], torch.zeros(5))


def test_lamb_empty_partition_joins_all_reduce(
    alone: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition without any tensor still takes part in the all-reduce."""
    reduced = []
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda tensor: reduced.append(tensor.shape)
    )
    flat = torch.zeros(8)
    optimizer = Lamb([{"params": [flat]}])
    optimizer.partition(flat, [None, None, None])
    flat.grad = torch.zeros(8)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert reduced == [(2, 3)]
    assert torch.equal(flat, torch.zeros(8))


def test_lamb_partition_must_be_consecutive() -> None:
    """Tensors of a partition that are not consecutive raise ValueError."""
    flat = torch.zeros(8)
    optimizer = Lamb([{"params": [flat]}])
    with pytest.raises(ValueError, match=r"\[0, 2\] of a partition are not consecutive"):
        optimizer.partition(flat, [(0, 4), None, (4, 4)])


def test_lamb_zero_tensor_uses_adam_step() -> None:
    """A tensor of zeros has the trust ratio 1, so its update is Adam's."""
    weight = torch.zeros(4)
    optimizer = Lamb([{"params": [weight], "weight_decay": 0.01}])
    weight.grad = torch.tensor([1.0, -2.0, 3.0, 0.0])
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    torch.testing.assert_close(weight, torch.tensor([-0.1, 0.1, -0.1, 0.0]), rtol=1e-5, atol=0)


def test_lamb_skips_tensor_without_gradient() -> None:
    """A tensor without a gradient is not updated, not even by weight decay."""
    weights = draw(0)
    optimizer = Lamb([{"params": weights, "weight_decay": 0.5}])
    weights[0].grad = torch.ones_like(weights[0])
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert not torch.equal(weights[0], draw(0)[0])
    assert all(torch.equal(w, before) for w, before in zip(weights[1:], draw(0)[1:], strict=True))


def test_lamb_state_dict_resumes_exactly() -> None:
    """Training from a loaded state continues bit for bit."""
    straight, stopped = draw(0), draw(0)
    train(Lamb([{"params": straight, "weight_decay": 0.01}]), straight)
    first = Lamb([{"params": stopped, "weight_decay": 0.01}])
    train(first, stopped, last=2)
    assert set(first.state[stopped[0]]) == {"exp_avg", "exp_avg_sq", "step"}
    second = Lamb([{"params": stopped, "weight_decay": 0.01}])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(second, stopped, first=2)
    assert all(torch.equal(w, s) for w, s in zip(straight, stopped, strict=True))
