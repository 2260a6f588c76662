"""Visits: which documents of a shard an epoch takes, and how often."""

from collections.abc import Iterator

import numpy as np

from data_prep.corpus.shards import Shard
from data_prep.counter_rng import key_of, uniform
from data_prep.samples.segments import BoolArray


def sampled_documents(
    shard: Shard, seed: int, epoch: int
) -> Iterator[tuple[int, BoolArray | None]]:
    """Yield (number of the visit, marks of the documents visited; None for all of them).

    With a weight of 2.3 every document is visited twice and three in ten once more. A document
    keeps a place between 0 and 1 and every epoch moves on by the fraction: whoever passes a whole
    number is visited. So with 0.5 the second epoch takes exactly what the first left out.
    """
    whole = int(shard.weight)
    for visit in range(whole):
        yield visit, None
    share = shard.weight - whole
    if share > 0:
        key = key_of("visits", seed, shard.counts.name)
        place = uniform(key, np.arange(shard.counts.documents)) + epoch * share
        extra = np.floor(place + share) > np.floor(place)
        if extra.any():
            yield whole, extra
