"""A table of distinct texts and their token ids, in arrays that numpy reads for many at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array

Int32Array = npt.NDArray[np.int32]
IdArray = npt.NDArray[Any]


class _Rows(dict[str, int]):
    """The row of each text; a new text gets the next one and is remembered as new."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(zip(texts, range(len(texts)), strict=True))
        self.new: list[str] = []

    def __missing__(self, text: str) -> int:
        row = self[text] = len(self)
        self.new.append(text)
        return row


class IdTable:
    """The ids of texts, a row for each: `ids[starts[r] : starts[r] + counts[r]]`.

    Args:
        token_type: of an id.
        max_texts, max_chars: when there are more, what was met only once is forgotten.
        fixed: texts without ids that have the first rows and are never forgotten.
    """

    def __init__(
        self,
        token_type: np.dtype[Any],
        *,
        max_texts: int,
        max_chars: int,
        fixed: Sequence[str] = (),
    ) -> None:
        self._max_texts, self._max_chars = max_texts, max_chars
        self._fixed = len(fixed)
        self._rows = _Rows(fixed)
        self._chars = 0
        self._ids: IdArray = np.zeros(0, token_type)
        self._starts: Int64Array = np.zeros(self._fixed, np.int64)
        self._counts: Int64Array = np.zeros(self._fixed, np.int64)
        # Whether a text was met again since it was new, or since the table was last full.
        self._again = np.zeros(self._fixed, np.bool_)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, texts: Sequence[str]) -> tuple[Int32Array, list[str]]:
        """Return the row of each text, and the new ones, which have the last rows and no ids yet.

        Rows hold until `make_room` is called.
        """
        known = len(self._rows)
        rows = np.fromiter(map(self._rows.__getitem__, texts), np.int32, len(texts))
        new, self._rows.new = self._rows.new, []
        self._again[rows[rows < known]] = True
        self._again = np.concatenate([self._again, np.zeros(len(new), np.bool_)])
        none = np.zeros(len(new), np.int64)
        self._starts, self._counts = (
            np.concatenate([array, none]) for array in (self._starts, self._counts)
        )
        self._chars += sum(map(len, new))
        return rows, new

    def add(self, rows: Int64Array, ids: IdArray, counts: Int64Array) -> None:
        """Say what ids new texts have: those of all of them in turn, and how many each has."""
        self._starts[rows] = len(self._ids) + np.cumsum(counts) - counts
        self._counts[rows] = counts
        self._ids = np.concatenate([self._ids, ids])

    def gather(self, rows: Int32Array) -> tuple[IdArray, Int64Array]:
        """Return the ids of some rows, one after another, and how many each row has."""
        counts = self._counts[rows]
        ends = np.cumsum(counts)
        # Where each id lies: the start of its row, and its place within it.
        places = np.repeat(self._starts[rows] - (ends - counts), counts)
        places += np.arange(len(places))
        return self._ids[places], counts

    def make_room(self) -> Int64Array | None:
        """Forget when the table is full; return the rows that are left, or None for all.

        What was met again is kept, the older half of the table at most: most chunks of natural
        text occur once, and the frequent ones come early.
        """
        if len(self._rows) <= self._max_texts and self._chars <= self._max_chars:
            return None
        texts = list(self._rows)
        again = np.flatnonzero(self._again[self._fixed :])[: self._max_texts // 2] + self._fixed
        sizes = np.array([len(texts[row]) for row in again], np.int64)
        again = again[np.cumsum(sizes) <= self._max_chars // 2]
        kept = np.concatenate([np.arange(self._fixed), again])
        ids, counts = self.gather(kept.astype(np.int32))
        self._rows = _Rows([texts[row] for row in kept])
        self._chars = int(sizes[: len(again)].sum())
        self._ids, self._counts, self._starts = ids, counts, np.cumsum(counts) - counts
        self._again = np.zeros(len(kept), np.bool_)
        return kept
