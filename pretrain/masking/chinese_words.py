"""Word segmentation of Chinese with jieba, since no tokenizer marks where its words start.

It is slow (jieba reads about a hundred thousand characters a second) and meant for loader workers.
It is deterministic: the same characters always give the same words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.errors import UserError

# Ideographs as BERT's pre-tokenizer defines them (its `_is_chinese_char`), then kana, which has no
# spaces between words either.
_BLOCKS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
    (0x3040, 0x30FF),
)  # fmt: skip


def is_chinese(character: str) -> bool:
    """Return whether a character belongs to a script without spaces between words."""
    code = ord(character)
    return code >= _BLOCKS[-1][0] and any(first <= code <= last for first, last in _BLOCKS)


@dataclass(frozen=True)
class ChineseWords:
    """Joins pieces to words of Chinese.

    It holds plain values, so that it can be pickled for a worker; jieba is imported on first use.
    """

    texts: dict[int, str]  # of the pieces of Chinese characters only, by id
    is_piece: npt.NDArray[np.bool_]  # whether an id is one of them, [V]

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], size: int, prefix: str) -> "ChineseWords":
        """Find the Chinese pieces of a vocabulary.

        Args:
            vocabulary: ids by piece.
            size: V, length of the tables.
            prefix: of pieces that start a word, or of those that continue one.
        """
        texts = {index: piece.removeprefix(prefix) for piece, index in vocabulary.items()}
        texts = {i: text for i, text in texts.items() if text and all(map(is_chinese, text))}
        is_piece = np.zeros(size, bool)
        is_piece[list(texts)] = True
        return cls(texts, is_piece)

    def join(self, ids: Int64Array, begins: npt.NDArray[np.bool_]) -> None:
        """Clear `begins` in place where a Chinese piece continues a word.

        A run of Chinese pieces ends with its segment at the latest, because a special token
        follows. A piece starts a word if one of jieba's words starts where the piece does.

        Args:
            ids: of the tokens, [N].
            begins: whether each token starts a word, [N].
        """
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.is_piece[ids], [False]])))
        for start, stop in edges.reshape(-1, 2).tolist():
            texts = [self.texts[index] for index in ids[start:stop].tolist()]
            ends = np.cumsum([len(word) for word in cut("".join(texts))])
            offsets = np.cumsum([0, *map(len, texts[:-1])])
            begins[start:stop] = np.isin(offsets, ends)
            begins[start] = True


def cut(text: str) -> list[str]:
    """Return the words of a run of Chinese characters."""
    words: list[str] = load_jieba().lcut(text)
    return words


def load_jieba() -> Any:
    """Return the jieba module, quietly.

    Raises:
        UserError: when it is not installed.
    """
    try:
        import jieba
    except ImportError as error:
        raise UserError(
            "mask.chinese_words needs jieba, which is not installed: "
            "run `pip install jieba`, or set mask.chinese_words to false."
        ) from error
    jieba.setLogLevel("WARNING")
    return jieba
