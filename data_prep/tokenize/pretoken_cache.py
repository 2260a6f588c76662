"""The chunks met so far: each is tokenized and asked for its sentence marks once.

Natural text repeats its chunks, so looking a chunk up replaces tokenizing it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.corpus.shards import Int64Array
from data_prep.tokenize.id_table import IdArray, IdTable, Int32Array
from data_prep.tokenize.pretoken_tokenizer import PretokenTokenizer
from data_prep.tokenize.sentence_flags import DOCUMENT_END, NEWLINE, SentenceRule, sentence_flags_of

# About 250 MB a process.
_MAX_CHUNKS = 1_000_000
_MAX_CHARS = 16_000_000

EMPTY_ROW, NEWLINE_ROW, DOCUMENT_END_ROW = 0, 1, 2
_FIXED = ("", NEWLINE, DOCUMENT_END)


class PretokenCache:
    """A table of chunks that fills itself; `end[r]` and `begin[r]` are the marks of row r.

    Args:
        tokenizer: gives the ids of chunks.
        rule: gives their sentence marks.
        token_type: of an id.
    """

    def __init__(
        self, tokenizer: PretokenTokenizer, rule: SentenceRule, token_type: np.dtype[Any]
    ) -> None:
        self._tokenizer = tokenizer
        self._rule = rule
        self._table = IdTable(token_type, max_texts=_MAX_CHUNKS, max_chars=_MAX_CHARS, fixed=_FIXED)
        marks = [(0, 0), sentence_flags_of(NEWLINE, rule), sentence_flags_of(DOCUMENT_END, rule)]
        self.end, self.begin = np.array(marks, np.uint8).T

    def rows(self, chunks: Sequence[str]) -> Int32Array:
        """Return the row of each chunk, after learning those that are new.

        The rows of a batch hold until the next one is looked up.
        """
        if (kept := self._table.make_room()) is not None:
            self.end, self.begin = self.end[kept], self.begin[kept]
        rows, new = self._table.rows(chunks)
        if new:
            self._learn(new)
        return rows

    def ids(self, rows: Int32Array) -> tuple[IdArray, Int64Array]:
        """Return the ids of some chunks, one after another, and how many each has."""
        return self._table.gather(rows)

    def _learn(self, chunks: list[str]) -> None:
        self._table.add(len(self.end) + np.arange(len(chunks)), *self._tokenizer.ids(chunks))
        marks = np.array([sentence_flags_of(chunk, self._rule) for chunk in chunks], np.uint8)
        self.end = np.concatenate([self.end, marks[:, 0]])
        self.begin = np.concatenate([self.begin, marks[:, 1]])
