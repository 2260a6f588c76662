"""Keys of dropout, a pure function of seed, step, row and layer.

A row is dropped alike whatever rank, micro-batch and place in it compute it, so none of them
changes the result. There is no generator state to save, so a resumed run drops the same elements.
"""

import numpy as np
import torch

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import hash64, key_of


def dropout_keys(
    seed: int, step: int, rows_KB: Int64Array, layers: int, device: torch.device
) -> torch.Tensor:
    """Return the keys of a rank's micro-batches in one step, without synchronising with the device.

    Args:
        seed: of the run.
        step: optimizer step, counted from 0.
        rows_KB: numbers of the rows of each micro-batch, unique within the step over all ranks; see
            `Loader.row_numbers`.
        layers: L layers with two dropouts each; the last key is that of the embeddings.
        device: the device of the keys.

    Returns:
        int32 [K, 2 * L + 1, B, 2], the 64 bits of each key as two halves.
    """
    # The keys of one more site are unused. They align every micro-batch to 16 bytes for any B.
    # Compiled layers assume that alignment, and would otherwise copy the keys of every other
    # micro-batch, in each layer.
    sites = np.arange(2 * layers + 2)
    counters = rows_KB[:, None, :] * len(sites) + sites[:, None]
    drawn = hash64(key_of("dropout", seed, step), counters)
    keys = torch.from_numpy(drawn.view(np.int32).reshape(*counters.shape, 2))
    if device.type == "cuda":
        keys = keys.pin_memory().to(device, non_blocking=True)
    return keys[:, :-1]
