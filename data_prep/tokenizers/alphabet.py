"""Which characters a tokenizer keeps: the most frequent ones of its training text."""

from collections.abc import Iterable, Mapping

import numpy as np

from data_prep.errors import UserError
from data_prep.text_batches import batch_by_chars

_CODE_POINTS = 0x110000
_BLOCK_CHARS = 1 << 20


def count_characters(texts: Iterable[str]) -> dict[str, int]:
    """Return how often each character occurs, in code point order; the texts are read once."""
    counts = np.zeros(_CODE_POINTS, np.int64)
    # In long blocks, because numpy is slow on many short arrays.
    for batch in batch_by_chars(texts, _BLOCK_CHARS):
        code_points = np.frombuffer("".join(batch).encode("utf-32-le"), np.uint32)
        seen, times = np.unique(code_points, return_counts=True)
        counts[seen] += times
    return {chr(code_point): int(counts[code_point]) for code_point in np.flatnonzero(counts)}


def most_frequent(counts: Mapping[str, int], limit: int) -> list[str]:
    """Return the `limit` most frequent characters in code point order; ties take the lower one.

    Raises:
        UserError: when there are none at all.
    """
    if not counts:
        raise UserError(
            "The input has no text to train a tokenizer on: correct input.path, or input.kind."
        )
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return sorted(ranked[:limit])
