"""Keys of dropout: which elements are dropped follows from the place of a pass in the run.

No generator has state, so a resumed run drops what it would have dropped.
"""

import torch

from data_prep.counter_rng import hash64, key_of


def dropout_keys(
    seed: int, step: int, rank: int, micro_batches: int, layers: int, device: torch.device
) -> torch.Tensor:
    """Return the keys of a rank's passes in one step, without waiting for a GPU.

    Args:
        seed: of the run.
        step: optimizer step, counted from 0.
        rank: of the process.
        micro_batches: K passes.
        layers: L layers, which have two dropouts each; the embeddings have the last one.
        device: where the keys are needed.

    Returns:
        int32 [K, 2 * L + 1, 2], the 64 bits of each key in halves.
    """
    sites = 2 * layers + 1
    drawn = hash64(key_of("dropout", seed, step, rank), range(micro_batches * sites))
    # Room for one more key makes every pass begin at a multiple of 16 bytes. A compiled layer takes
    # its keys as aligned, and would copy those of every other pass, layer by layer, to make it so.
    keys = torch.zeros(micro_batches, sites + 1, 2, dtype=torch.int32)
    keys[:, :sites] = torch.from_numpy(drawn.view("int32").reshape(micro_batches, sites, 2))
    if device.type == "cuda":
        keys = keys.pin_memory().to(device, non_blocking=True)
    return keys[:, :sites]
