"""LAMB takes the steps of the paper's algorithm, with tensors whole or cut into a flat part."""

import copy

import pytest
import torch

from pretrain.distributed import Cluster
from pretrain.optim.lamb import Lamb
from tests.pretrain.optim.lamb_reference import Reference

SHAPES = [(7, 5), (64, 3), (3,), (11, 2)]
RATES = [0.01, 0.02, 0.03, 0.015]
# Five operations an element and two norms a tensor in fp32, each right to 2^-24 or a few times
# that, over four steps that move a weight by some hundredths of itself.
CLOSE = {"rtol": 2e-6, "atol": 1e-7}


def draw(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def references(*, decay: float, adapted: bool) -> list[Reference]:
    return [Reference(weight=weight, decay=decay, adapted=adapted) for weight in draw(0)]


def train(optimizer: Lamb, weights: list[torch.Tensor], first: int = 0, last: int = 4) -> None:
    for step in range(first, last):
        for weight, gradient in zip(weights, draw(step + 1), strict=True):
            weight.grad = gradient
        optimizer.param_groups[0]["lr"] = RATES[step]
        optimizer.step()


@pytest.mark.parametrize(
    ("decay", "adapted"), [(0.01, True), (0.0, True), (0.0, False), (0.3, False)]
)
def test_whole_tensors_take_the_steps_of_the_algorithm(decay: float, adapted: bool) -> None:
    weights = draw(0)
    optimizer = Lamb([{"params": weights, "weight_decay": decay, "trust_ratio": adapted}])
    expected = references(decay=decay, adapted=adapted)
    train(optimizer, weights)
    for step, rate in enumerate(RATES):
        for reference, gradient in zip(expected, draw(step + 1), strict=True):
            reference.step(gradient, rate)
    for weight, reference in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.double(), reference.weight, **CLOSE)


def test_a_flat_part_takes_the_same_steps_and_its_padding_stays_zero(alone: Cluster) -> None:
    flat = torch.cat([*(weight.flatten() for weight in draw(0)), torch.zeros(5)])
    optimizer = Lamb([{"params": [flat], "weight_decay": 0.01}])
    lengths = [weight.numel() for weight in draw(0)]
    begins = [sum(lengths[:index]) for index in range(len(lengths))]
    # The first tensor of the group lies on another rank, which is as if it did not exist here.
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


def test_a_part_without_any_tensor_still_meets_the_other_ranks(
    alone: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: met.append(tensor.shape))
    flat = torch.zeros(8)
    optimizer = Lamb([{"params": [flat]}])
    optimizer.partition(flat, [None, None, None])
    flat.grad = torch.zeros(8)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert met == [(2, 3)]
    assert torch.equal(flat, torch.zeros(8))


def test_tensors_that_are_no_neighbours_are_a_programming_error() -> None:
    flat = torch.zeros(8)
    optimizer = Lamb([{"params": [flat]}])
    with pytest.raises(ValueError, match=r"\[0, 2\] of a partition are no neighbours"):
        optimizer.partition(flat, [(0, 4), None, (4, 4)])


def test_a_tensor_of_zeros_moves_as_under_adam() -> None:
    weight = torch.zeros(4)
    optimizer = Lamb([{"params": [weight], "weight_decay": 0.01}])
    weight.grad = torch.tensor([1.0, -2.0, 3.0, 0.0])
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    torch.testing.assert_close(weight, torch.tensor([-0.1, 0.1, -0.1, 0.0]), rtol=1e-5, atol=0)


def test_a_tensor_without_a_gradient_stays_where_it_is() -> None:
    weights = draw(0)
    optimizer = Lamb([{"params": weights, "weight_decay": 0.5}])
    weights[0].grad = torch.ones_like(weights[0])
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert not torch.equal(weights[0], draw(0)[0])
    assert all(torch.equal(w, before) for w, before in zip(weights[1:], draw(0)[1:], strict=True))


def test_a_loaded_state_goes_on_bit_for_bit() -> None:
    straight, stopped = draw(0), draw(0)
    train(Lamb([{"params": straight, "weight_decay": 0.01}]), straight)
    first = Lamb([{"params": stopped, "weight_decay": 0.01}])
    train(first, stopped, last=2)
    assert set(first.state[stopped[0]]) == {"exp_avg", "exp_avg_sq", "step"}
    second = Lamb([{"params": stopped, "weight_decay": 0.01}])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(second, stopped, first=2)
    assert all(torch.equal(w, s) for w, s in zip(straight, stopped, strict=True))
