"""The chunks met so far: each is tokenized and asked for its sentence marks once.

Natural text repeats its chunks, so looking a chunk up replaces tokenizing it. What is known of the
chunks lies in arrays with a row for each, which numpy reads for a whole batch of text at once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.chunk_tokenizer import ChunkTokenizer
from data_prep.marks import DOCUMENT_END, NEWLINE, SentenceRule, marks_of
from data_prep.shards import Int64Array

# About 250 MB a process. Full means empty again: what is frequent is back at once.
_MAX_CHUNKS = 1_000_000
_MAX_CHARS = 16_000_000

EMPTY_ROW, NEWLINE_ROW, DOCUMENT_END_ROW = 0, 1, 2
_FIXED = {"": EMPTY_ROW, NEWLINE: NEWLINE_ROW, DOCUMENT_END: DOCUMENT_END_ROW}


class _Rows(dict[str, int]):
    """The row of each chunk; a new chunk gets the next one and is remembered as new."""

    def __init__(self) -> None:
        super().__init__(_FIXED)
        self.new: list[str] = []

    def __missing__(self, chunk: str) -> int:
        row = self[chunk] = len(self)
        self.new.append(chunk)
        return row


class Lexicon:
    """A table of chunks that fills itself.

    Args:
        tokenizer: gives the ids of a chunk.
        rule: gives its sentence marks.
        token_type: of an id.

    Row r has the tokens `ids[starts[r] : starts[r] + counts[r]]` and the marks `end[r]` and
    `begin[r]`. The rows of a batch hold until the next one is looked up.
    """

    def __init__(
        self, tokenizer: ChunkTokenizer, rule: SentenceRule, token_type: np.dtype[Any]
    ) -> None:
        self._tokenizer = tokenizer
        self._rule = rule
        self._token_type = token_type
        self._forget()

    def rows(self, chunks: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the row of each chunk, after learning those that are new."""
        if len(self._rows) > _MAX_CHUNKS or self._chars > _MAX_CHARS:
            self._forget()
        rows = np.fromiter(map(self._rows.__getitem__, chunks), np.int32, len(chunks))
        if self._rows.new:
            self._learn(self._rows.new)
            self._rows.new = []
        return rows

    def _forget(self) -> None:
        self._rows = _Rows()
        self._chars = 0
        self.ids: npt.NDArray[Any] = np.zeros(0, self._token_type)
        self.starts: Int64Array = np.zeros(len(_FIXED), np.int64)
        self.counts: Int64Array = np.zeros(len(_FIXED), np.int64)
        marks = [(0, 0), marks_of(NEWLINE, self._rule), marks_of(DOCUMENT_END, self._rule)]
        self.end, self.begin = np.array(marks, np.uint8).T

    def _learn(self, chunks: list[str]) -> None:
        ids = self._tokenizer.ids(chunks)
        counts = np.array([len(chunk) for chunk in ids], np.int64) // self._token_type.itemsize
        starts = len(self.ids) + np.cumsum(counts) - counts
        marks = np.array([marks_of(chunk, self._rule) for chunk in chunks], np.uint8)
        self.ids = np.concatenate([self.ids, np.frombuffer(b"".join(ids), self._token_type)])
        self.starts = np.concatenate([self.starts, starts])
        self.counts = np.concatenate([self.counts, counts])
        self.end = np.concatenate([self.end, marks[:, 0]])
        self.begin = np.concatenate([self.begin, marks[:, 1]])
        self._chars += sum(map(len, chunks))
