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
def test_a_whole_weight_visits_every_document_that_often(weight: float, expected: int) -> None:
    for epoch in (0, 1, 99):
        assert (times_taken(weight, epoch) == expected).all()


@pytest.mark.parametrize("weight", [0.01, 0.3, 0.5, 1.25, 2.9])
def test_a_fraction_is_the_share_of_documents_visited_once_more(weight: float) -> None:
    share = weight % 1
    deviation = (COUNT * share * (1 - share)) ** 0.5
    for epoch in (0, 3):
        times = times_taken(weight, epoch)
        assert set(times.tolist()) == {int(weight), int(weight) + 1}
        assert abs(int((times - int(weight)).sum()) - COUNT * share) < 5 * deviation


def test_epochs_take_turns_until_every_document_was_visited_equally_often() -> None:
    assert (times_taken(0.5, 0) + times_taken(0.5, 1) == 1).all()
    assert (sum(times_taken(0.25, epoch) for epoch in range(8)) == 2).all()
    over_ten = sum(times_taken(0.3, epoch) for epoch in range(10))
    assert over_ten.min() >= 2 and over_ten.max() <= 4 and abs(over_ten.mean() - 3) < 0.01


def test_seeds_and_shards_choose_other_documents() -> None:
    first = times_taken(0.5, 0)
    for other in (times_taken(0.5, 0, seed=1), times_taken(0.5, 0, name="train_00001")):
        assert 0.4 < (first == other).mean() < 0.6


def test_a_tiny_weight_may_pass_a_shard_by() -> None:
    shard = synthetic_shard([[3]] * 2)
    shard.weight = 1e-9
    assert list(sampled_documents(shard, 0, 0)) == []
