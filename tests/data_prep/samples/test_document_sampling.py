"""Document sampling: a weight is the expected number of times an epoch takes each document."""

import numpy as np
import pytest

from data_prep.samples.document_sampling import sampled_documents
from tests.synthetic_shards import synthetic_shard

COUNT = 4000


def times_taken(weight: float, epoch: int, seed: int = 0, name: str = "train_00000") -> np.ndarray:
    """Return how often each document is taken, [documents]."""
    shard = synthetic_shard([[3]] * COUNT, name=name)
    shard.weight = weight
    times = np.zeros(COUNT, np.int64)
    numbers = []
    for number, chosen in sampled_documents(shard, seed, epoch):
        numbers.append(number)
        times += 1 if chosen is None else chosen
    assert numbers == sorted(set(numbers)), "no two repetitions have the same key"
    return times


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 1), (2.0, 2), (7.0, 7)])
def test_integer_weight_repeats_documents(weight: float, expected: int) -> None:
    """With an integer weight an epoch takes every document that often."""
    for epoch in (0, 1, 99):
        assert (times_taken(weight, epoch) == expected).all()


@pytest.mark.parametrize("weight", [0.01, 0.3, 0.5, 1.25, 2.9])
def test_fractional_weight_samples_share(weight: float) -> None:
    """The fraction of a weight is the share of documents taken once more."""
    share = weight % 1
    deviation = (COUNT * share * (1 - share)) ** 0.5
    for epoch in (0, 3):
        times = times_taken(weight, epoch)
        assert set(times.tolist()) == {int(weight), int(weight) + 1}
        assert abs(int((times - int(weight)).sum()) - COUNT * share) < 5 * deviation


def test_epochs_balance_documents() -> None:
    """Over the epochs every document is taken equally often."""
    assert (times_taken(0.5, 0) + times_taken(0.5, 1) == 1).all()
    assert (sum(times_taken(0.25, epoch) for epoch in range(8)) == 2).all()
    over_ten = sum(times_taken(0.3, epoch) for epoch in range(10))
    assert over_ten.min() >= 2 and over_ten.max() <= 4 and abs(over_ten.mean() - 3) < 0.01


def test_sampling_depends_on_seed_and_shard() -> None:
    """Another seed or shard samples other documents."""
    first = times_taken(0.5, 0)
    for other in (times_taken(0.5, 0, seed=1), times_taken(0.5, 0, name="train_00001")):
        assert 0.4 < (first == other).mean() < 0.6


def test_tiny_weight_may_skip_shard() -> None:
    """With a tiny weight an epoch may take no document of a shard."""
    shard = synthetic_shard([[3]] * 2)
    shard.weight = 1e-9
    assert list(sampled_documents(shard, 0, 0)) == []
