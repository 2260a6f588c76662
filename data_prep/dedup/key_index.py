"""The key index of a part of the corpus, by which duplicates are found across all parts.

A part is a train shard, a validation shard, and the key index of both: for every document and every
paragraph, in reading order, a key that only copies share. So deduplication reads keys, not text,
and a part can be rewritten without its duplicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import UInt64Array

KEY = np.dtype([("key", "<u8"), ("owner", "<u4")])
KeyTable = npt.NDArray[np.void]

DOCUMENT_KEYS, NEAR_KEYS, PARAGRAPH_KEYS = "document_keys", "near_keys", "paragraph_keys"
_TABLES = (DOCUMENT_KEYS, NEAR_KEYS, PARAGRAPH_KEYS)
_LAYOUT = ("splits", "paragraphs", "sentences")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The splits and sizes of the documents of a part, in reading order.

    Document i is in the split with index `splits[i]` and has `paragraphs[i]` paragraphs. Paragraph
    j of the part has `sentences[j]` sentences.
    """

    splits: Int64Array
    paragraphs: Int64Array
    sentences: Int64Array


class KeyIndex:
    """Collects the keys of one part; takes about 20 bytes of memory a paragraph."""

    def __init__(self) -> None:
        self._layout: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in _LAYOUT}
        self._tables: dict[str, list[KeyTable]] = {name: [] for name in _TABLES}
        self._documents = self._paragraphs = 0

    def add(
        self,
        layout: Layout,
        document_keys: UInt64Array,
        near_keys: Sequence[Sequence[int]],
        paragraph_keys: UInt64Array,
    ) -> None:
        """Append documents; the arrays of keys that are not used may be empty."""
        for name, arrays in self._layout.items():
            arrays.append(getattr(layout, name))
        self._add_keys(DOCUMENT_KEYS, document_keys, self._documents)
        self._add_keys(PARAGRAPH_KEYS, paragraph_keys, self._paragraphs)
        near = np.array([key for keys in near_keys for key in keys], np.uint64)
        owners = np.repeat(np.arange(len(near_keys)), [len(keys) for keys in near_keys])
        self._tables[NEAR_KEYS].append(_table(near, owners + self._documents))
        self._documents += len(layout.splits)
        self._paragraphs += len(layout.sentences)

    def save(self, directory: Path, part: str) -> list[str]:
        """Write the files of a part's key index and return their names."""
        files = {}
        for name, layout in self._layout.items():
            files[name] = np.concatenate([*layout, np.zeros(0, np.int64)])
        for name, tables in self._tables.items():
            table = np.concatenate([*tables, np.zeros(0, KEY)])
            files[name] = table[np.lexsort((table["owner"], table["key"]))]
        for name, array in files.items():
            np.save(directory / key_index_file(part, name), array)
        return [key_index_file(part, name) for name in files]

    def _add_keys(self, table: str, keys: UInt64Array, base: int) -> None:
        self._tables[table].append(_table(keys, np.arange(len(keys)) + base))


def key_index_file(part: str, name: str) -> str:
    """Return the name of one file of a part's key index."""
    return f"ledger_{part}.{name}.npy"


def read_layout(directory: Path, part: str) -> Layout:
    """Read the layout of a part."""
    return Layout(**{name: np.load(directory / key_index_file(part, name)) for name in _LAYOUT})


def read_keys(directory: Path, part: str, table: str) -> KeyTable:
    """Map one key table of a part into memory; it ascends by key, then by owner."""
    return np.load(directory / key_index_file(part, table), mmap_mode="r")  # type: ignore[no-any-return]


def _table(keys: UInt64Array, owners: Int64Array) -> KeyTable:
    table = np.zeros(len(keys), KEY)
    table["key"], table["owner"] = keys, owners
    return table
