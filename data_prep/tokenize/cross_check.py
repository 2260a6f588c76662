"""Trust in fast tokenization is earned at run time: samples are compared with the reference.

Of each batch a few paragraphs are encoded a second time, whole, by `tokenizers`: this also catches
ids that depend on what stands across a sentence boundary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.errors import UserError

# Paragraphs compared in each batch: some at fixed distances, and of those between them the least
# ordinary ones. About 0.1 % of the text, which the reference encodes in 2 % of the time.
_REGULAR, _UNUSUAL, _CONSIDERED = 2, 2, 64
_MAX_CHARS = 2_000


class CrossCheck:
    """Compares samples of fast tokenization with the reference.

    Args:
        tokenizer: the reference; special tokens in text are its characters.
        name: of the library that is compared with it.
    """

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    def compare(
        self,
        paragraph: Callable[[int], str],
        tokens: npt.NDArray[Any],
        ends: npt.NDArray[np.int64],
    ) -> None:
        """Compare some paragraphs of a batch.

        Args:
            paragraph: returns one of them, by its index.
            tokens: the ids of all.
            ends: where those of each paragraph end in `tokens`.

        Raises:
            UserError: with the text that shows a difference.
        """
        chosen = [i for i in _sample(paragraph, len(ends)) if len(paragraph(i)) <= _MAX_CHARS]
        texts = list(map(paragraph, chosen))
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for index, encoding in zip(chosen, encodings, strict=True):
            start = int(ends[index - 1]) if index else 0
            found = tokens[start : int(ends[index])].tolist()
            if found != encoding.ids:
                self._refuse(paragraph(index), found, encoding.ids)

    def _refuse(self, text: str, found: list[int], expected: list[int]) -> None:
        same = next(
            (n for n, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
            min(len(found), len(expected)),
        )
        ours, theirs = (
            [self._tokenizer.id_to_token(index) for index in ids[same : same + 5]]
            for ids in (found, expected)
        )
        raise UserError(
            f"{self._name} tokenizes {text[:200]!r} otherwise than tokenizers does: from token "
            f"{same} on {ours} instead of {theirs}; set tokenizer.backend=tokenizers, and report "
            "this text."
        )


def _sample(paragraph: Callable[[int], str], count: int) -> list[int]:
    """Return the indices of paragraphs to compare, the same for the same paragraphs."""
    if not count:
        return []
    regular = range(0, count, -(-count // _REGULAR))
    considered = range(0, count, -(-count // _CONSIDERED))
    unusual = sorted(considered, key=lambda i: _ascii_share(paragraph(i)))[:_UNUSUAL]
    return sorted({*regular, *unusual})


def _ascii_share(text: str) -> float:
    return 1.0 if text.isascii() else len(text) / len(text.encode("utf-8", "replace"))
