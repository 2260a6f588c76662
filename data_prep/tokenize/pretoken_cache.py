"""The pre-token cache: each distinct pre-token is tokenized and flagged once.

Natural text repeats its pre-tokens, so that most are looked up instead of tokenized.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.corpus.shards import Int64Array
from data_prep.tokenize.id_table import IdArray, IdTable, Int32Array
from data_prep.tokenize.pretoken_tokenizer import PretokenTokenizer
from data_prep.tokenize.sentence_flags import DOCUMENT_END, NEWLINE, SentenceRule, sentence_flags_of

# About 250 MB a process.
_MAX_PRETOKENS = 1_000_000
_MAX_CHARS = 16_000_000

EMPTY_ROW, NEWLINE_ROW, DOCUMENT_END_ROW = 0, 1, 2
_FIXED = ("", NEWLINE, DOCUMENT_END)


class PretokenCache:
    """A table of pre-tokens; `end[r]` and `begin[r]` are the sentence-boundary flags of row r.

    Args:
        tokenizer: computes the ids of pre-tokens.
        rule: computes their sentence-boundary flags.
        token_type: of an id.
    """

    def __init__(
        self, tokenizer: PretokenTokenizer, rule: SentenceRule, token_type: np.dtype[Any]
    ) -> None:
        self._tokenizer = tokenizer
        self._rule = rule
        self._table = IdTable(
            token_type, max_texts=_MAX_PRETOKENS, max_chars=_MAX_CHARS, fixed=_FIXED
        )
        flags = [(0, 0), sentence_flags_of(NEWLINE, rule), sentence_flags_of(DOCUMENT_END, rule)]
        self.end, self.begin = np.array(flags, np.uint8).T

    def rows(self, pretokens: Sequence[str]) -> Int32Array:
        """Return the row of each pre-token, after adding new ones to the table.

        The rows of a batch are valid until the next one is looked up.
        """
        if (kept := self._table.evict()) is not None:
            self.end, self.begin = self.end[kept], self.begin[kept]
        rows, new = self._table.rows(pretokens)
        if new:
            self._add(new)
        return rows

    def ids(self, rows: Int32Array) -> tuple[IdArray, Int64Array]:
        """Return the concatenated ids of some rows, and how many each has."""
        return self._table.gather(rows)

    def _add(self, pretokens: list[str]) -> None:
        rows = len(self.end) + np.arange(len(pretokens))
        self._table.add(rows, *self._tokenizer.ids(pretokens))
        flags = np.array([sentence_flags_of(each, self._rule) for each in pretokens], np.uint8)
        self.end = np.concatenate([self.end, flags[:, 0]])
        self.begin = np.concatenate([self.begin, flags[:, 1]])
