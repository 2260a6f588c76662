"""A table of distinct texts and their token ids, in arrays for vectorised look-up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array

Int32Array = npt.NDArray[np.int32]
IdArray = npt.NDArray[Any]


class _Rows(dict[str, int]):
    """The row of each text; a new text gets the next row and is added to `new`."""

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
        max_texts: when there are more, texts that occurred only once are discarded.
        max_chars: the same, by the total length of the texts.
        fixed: texts without ids that have the first rows and are never discarded.
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
        # Whether a text occurred again since it was new, or since the table was last full.
        self._recurred = np.zeros(self._fixed, np.bool_)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, texts: Sequence[str]) -> tuple[Int32Array, list[str]]:
        """Return the row of each text, and the new texts, which have the last rows and no ids yet.

        Rows are valid until `evict` is called.
        """
        known = len(self._rows)
        rows = np.fromiter(map(self._rows.__getitem__, texts), np.int32, len(texts))
        new, self._rows.new = self._rows.new, []
        self._recurred[rows[rows < known]] = True
        self._recurred = np.concatenate([self._recurred, np.zeros(len(new), np.bool_)])
        none = np.zeros(len(new), np.int64)
        self._starts, self._counts = (
            np.concatenate([array, none]) for array in (self._starts, self._counts)
        )
        self._chars += sum(map(len, new))
        return rows, new

    def add(self, rows: Int64Array, ids: IdArray, counts: Int64Array) -> None:
        """Set the ids of new texts.

        Args:
            rows: of the texts, [T].
            ids: of all of them, concatenated.
            counts: how many each has, [T].
        """
        self._starts[rows] = len(self._ids) + np.cumsum(counts) - counts
        self._counts[rows] = counts
        self._ids = np.concatenate([self._ids, ids])

    def gather(self, rows: Int32Array) -> tuple[IdArray, Int64Array]:
        """Return the concatenated ids of some rows, and how many each row has."""
        counts = self._counts[rows]
        ends = np.cumsum(counts)
        # The index of each id: the start of its row, plus its offset within it.
        indices = np.repeat(self._starts[rows] - (ends - counts), counts)
        indices += np.arange(len(indices))
        return self._ids[indices], counts

    def evict(self) -> Int64Array | None:
        """Discard texts if the table is full; return the rows that are kept, or None for all.

        Texts that occurred again are kept, oldest first, up to half of the table: most pre-tokens
        of natural text occur once, and the frequent ones come early.
        """
        if len(self._rows) <= self._max_texts and self._chars <= self._max_chars:
            return None
        texts = list(self._rows)
        recurred = np.flatnonzero(self._recurred[self._fixed :])[: self._max_texts // 2]
        recurred += self._fixed
        sizes = np.array([len(texts[row]) for row in recurred], np.int64)
        recurred = recurred[np.cumsum(sizes) <= self._max_chars // 2]
        kept = np.concatenate([np.arange(self._fixed), recurred])
        ids, counts = self.gather(kept.astype(np.int32))
        self._rows = _Rows([texts[row] for row in kept])
        self._chars = int(sizes[: len(recurred)].sum())
        self._ids, self._counts, self._starts = ids, counts, np.cumsum(counts) - counts
        self._recurred = np.zeros(len(kept), np.bool_)
        return kept
