"""A dummy batch: fixed pseudo-random ids, for dry runs and checks of a model."""

import torch

from data_prep.counter_rng import integers_below, key_of
from pretrain.data.batch import Batch


def dummy_batch(
    vocab_size: int, rows: int, row_tokens: int, masked_tokens: int | None = None
) -> Batch:
    """Return rows of one sample each, without padding.

    Args:
        vocab_size: ids are below it.
        rows: number of rows.
        row_tokens: tokens of a row.
        masked_tokens: how many of the first tokens are masked; None: all of them.
    """
    tokens = rows * row_tokens
    masked = tokens if masked_tokens is None else min(masked_tokens, tokens)
    ids = torch.from_numpy(integers_below(key_of("probe"), range(tokens), vocab_size))
    positions = torch.arange(tokens) % row_tokens
    return Batch(
        input_ids=ids,
        token_types=(positions >= row_tokens // 2).long(),
        positions=positions,
        sample_ids=torch.ones(tokens, dtype=torch.int32),
        cu_seqlens=torch.arange(0, tokens + 1, row_tokens, dtype=torch.int32),
        masked_positions=torch.arange(masked),
        mlm_labels=ids[:masked],
        cls_positions=torch.arange(0, tokens, row_tokens),
        nsp_labels=torch.zeros(rows, dtype=torch.int64),
        row_tokens=row_tokens,
        counts={"masked": masked, "samples": rows, "tokens": tokens},
    )
