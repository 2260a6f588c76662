"""Which characters a tokenizer keeps: the most frequent ones of its training text."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from data_prep.errors import UserError

_CODE_POINTS = 0x110000
_BLOCK_CHARS = 1 << 20


def count_characters(texts: Iterable[str]) -> dict[str, int]:
    """Return how often each character occurs, in code point order; the texts are read once."""
    counts = np.zeros(_CODE_POINTS, np.int64)
    for block in _joined(texts):
        code_points = np.frombuffer(block.encode("utf-32-le"), np.uint32)
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


def _joined(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts in long blocks: numpy is slow on many short arrays."""
    block: list[str] = []
    chars = 0
    for text in texts:
        block.append(text)
        chars += len(text)
        if chars >= _BLOCK_CHARS:
            yield "".join(block)
            block, chars = [], 0
    yield "".join(block)
