"""A batch to ask a model about: random, and always the same."""

import torch

from data_prep.counter_rng import integers_below, key_of
from pretrain.data.batch import Batch
from pretrain.model import BertShape


def probe_batch(shape: BertShape, rows: int, row_tokens: int, words: int | None = None) -> Batch:
    """Return rows of random ids, one sample a row, every token asked for or so many of them."""
    places = rows * row_tokens
    asked = places if words is None else min(words, places)
    drawn = torch.from_numpy(integers_below(key_of("probe"), range(places), shape.vocab_size))
    positions = torch.arange(places) % row_tokens
    return Batch(
        input_ids=drawn,
        token_types=(positions >= row_tokens // 2).long(),
        positions=positions,
        sample_ids=torch.ones(places, dtype=torch.int32),
        bounds=torch.arange(0, places + 1, row_tokens, dtype=torch.int32),
        masked=torch.arange(asked),
        mlm_labels=drawn[:asked],
        firsts=torch.arange(0, places, row_tokens),
        nsp_labels=torch.zeros(rows, dtype=torch.int64),
        row_tokens=row_tokens,
        counts={"masked": asked, "samples": rows, "tokens": places},
    )
