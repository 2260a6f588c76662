"""Document sampling: which documents of a shard an epoch takes, and how often.

The weight of a corpus is the expected number of times an epoch takes each of its documents. The
integer part takes all of them that often. The fraction is systematic sampling over epochs: each
document has a phase drawn uniformly from [0, 1) that advances by the fraction every epoch, and an
epoch takes the documents whose phase passes an integer. So with a weight of 0.5 the second epoch
takes exactly the documents that the first left out.
"""

from collections.abc import Iterator

import numpy as np

from data_prep.corpus.shards import Shard
from data_prep.counter_rng import key_of, uniform
from data_prep.samples.segments import BoolArray


def sampled_documents(
    shard: Shard, seed: int, epoch: int
) -> Iterator[tuple[int, BoolArray | None]]:
    """Yield (repetition, mask of the documents taken; None for all of them).

    A weight of 2.3 gives three repetitions: 0 and 1 with all documents, 2 with three in ten.
    """
    whole = int(shard.weight)
    for repetition in range(whole):
        yield repetition, None
    fraction = shard.weight - whole
    if fraction > 0:
        key = key_of("visits", seed, shard.counts.name)
        phase = uniform(key, np.arange(shard.counts.documents)) + epoch * fraction
        taken = np.floor(phase + fraction) > np.floor(phase)
        if taken.any():
            yield whole, taken
