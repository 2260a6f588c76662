"""Keys of dropout, a pure function of seed, step, rank, micro-batch and layer.

There is no generator state to save, so a resumed run drops the same elements.
"""

import torch

from data_prep.counter_rng import hash64, key_of


def dropout_keys(
    seed: int, step: int, rank: int, micro_batches: int, layers: int, device: torch.device
) -> torch.Tensor:
    """Return the keys of a rank's passes in one step, without device-to-host synchronisation.

    Args:
        seed: of the run.
        step: optimizer step, counted from 0.
        rank: of the process.
        micro_batches: K forward passes in the step.
        layers: L layers with two dropouts each; the last key is that of the embeddings.
        device: the device of the keys.

    Returns:
        int32 [K, 2 * L + 1, 2], the 64 bits of each key as two halves.
    """
    sites = 2 * layers + 1
    drawn = hash64(key_of("dropout", seed, step, rank), range(micro_batches * sites))
    # One unused key aligns every pass to 16 bytes. Compiled layers assume that alignment, and
    # would otherwise copy the keys of every other pass, in each layer.
    keys = torch.zeros(micro_batches, sites + 1, 2, dtype=torch.int32)
    keys[:, :sites] = torch.from_numpy(drawn.view("int32").reshape(micro_batches, sites, 2))
    if device.type == "cuda":
        keys = keys.pin_memory().to(device, non_blocking=True)
    return keys[:, :sites]
