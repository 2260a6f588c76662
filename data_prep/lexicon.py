"""The chunks met so far: each is tokenized and asked for its sentence marks once.

Natural text repeats its chunks, so looking a chunk up replaces tokenizing it. What is known of the
chunks lies in arrays with a row for each, which numpy reads for a whole batch of text at once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.chunk_tokenizer import ChunkTokenizer
from data_prep.marks import DOCUMENT_END, NEWLINE, Marks, SentenceRule, marks_of
from data_prep.shards import Int64Array

# About 250 MB a process. When it is full, what was met only once is forgotten.
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
        self._clear()

    def rows(self, chunks: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the row of each chunk, after learning those that are new."""
        if len(self._rows) > _MAX_CHUNKS or self._chars > _MAX_CHARS:
            self._forget()
        known = len(self._rows)
        rows = np.fromiter(map(self._rows.__getitem__, chunks), np.int32, len(chunks))
        self._again[rows[rows < known]] = True
        if self._rows.new:
            self._learn(self._rows.new)
            self._rows.new = []
        return rows

    def _clear(self) -> None:
        self._rows = _Rows()
        self._chars = 0
        self.ids: npt.NDArray[Any] = np.zeros(0, self._token_type)
        self.starts: Int64Array = np.zeros(len(_FIXED), np.int64)
        self.counts: Int64Array = np.zeros(len(_FIXED), np.int64)
        marks = [(0, 0), marks_of(NEWLINE, self._rule), marks_of(DOCUMENT_END, self._rule)]
        self.end, self.begin = np.array(marks, np.uint8).T
        # Whether a chunk was met again since it was learned, or since the table was last full.
        self._again = np.zeros(len(_FIXED), np.bool_)

    def _forget(self) -> None:
        """Make room: keep the chunks that were met again, the older half of the table at most.

        Most chunks of natural text occur once, and the frequent ones come early.
        """
        chunks = list(self._rows)
        kept = np.flatnonzero(self._again)
        kept = kept[kept >= len(_FIXED)][: _MAX_CHUNKS // 2]
        sizes = np.array([len(chunks[row]) for row in kept], np.int64)
        kept = kept[np.cumsum(sizes) <= _MAX_CHARS // 2]
        starts, counts, ids = self.starts[kept], self.counts[kept], self.ids
        end, begin = self.end[kept], self.begin[kept]
        self._clear()
        for row in kept:
            self._rows[chunks[row]]
        self._rows.new = []
        self._chars = int(sizes[: len(kept)].sum())
        ends = np.cumsum(counts)
        self.ids = ids[np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())]
        self._append(ends - counts, counts, end, begin)

    def _learn(self, chunks: list[str]) -> None:
        ids = self._tokenizer.ids(chunks)
        counts = np.array([len(chunk) for chunk in ids], np.int64) // self._token_type.itemsize
        starts = len(self.ids) + np.cumsum(counts) - counts
        marks = np.array([marks_of(chunk, self._rule) for chunk in chunks], np.uint8)
        self.ids = np.concatenate([self.ids, np.frombuffer(b"".join(ids), self._token_type)])
        self._append(starts, counts, marks[:, 0], marks[:, 1])
        self._chars += sum(map(len, chunks))

    def _append(self, starts: Int64Array, counts: Int64Array, end: Marks, begin: Marks) -> None:
        self.starts = np.concatenate([self.starts, starts])
        self.counts = np.concatenate([self.counts, counts])
        self.end = np.concatenate([self.end, end])
        self.begin = np.concatenate([self.begin, begin])
        self._again = np.concatenate([self._again, np.zeros(len(starts), np.bool_)])
