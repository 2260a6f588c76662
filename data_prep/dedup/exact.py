"""Duplicates: documents and paragraphs with the key of an earlier one, anywhere in the input.

The keys of all parts are compared one range of values at a time, so that memory does not grow with
the corpus. "Earlier" means reading order, so the same duplicates are found for any number of
workers. A document is a near-duplicate when any of its keys (see `minhash.py`) is that of an
earlier document. A paragraph inside a dropped document does not count as the first of its copies.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.config.schema import CleanOptions
from data_prep.counter_rng import UInt64Array
from data_prep.dedup.key_index import (
    DOCUMENT_KEYS,
    NEAR_KEYS,
    PARAGRAPH_KEYS,
    key_index_file,
    read_keys,
    read_layout,
)

Flags = npt.NDArray[np.uint8]

# Why a document or a paragraph is dropped, as bits of its flag.
DUPLICATE, NEAR_DUPLICATE = 1, 2
# Keys in memory at a time, of 12 bytes; sorting them takes about as much again, twice.
_KEYS_AT_ONCE = 1 << 22
_KEY_SPACE = 1 << 64


def keys_of(texts: Sequence[str]) -> UInt64Array:
    """Return a 64-bit key of each text; two of a billion texts collide with odds of 1 in 37."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, map(str.encode, texts)), np.uint64, len(texts))


def mark_duplicates(directory: Path, parts: Sequence[str], options: CleanOptions) -> None:
    """Write, beside the key index of each part, a flag for every document and every paragraph."""
    for part in parts:
        layout = read_layout(directory, part)
        np.save(directory / key_index_file(part, "drop_documents"), _zeros(len(layout.splits)))
        np.save(directory / key_index_file(part, "drop_paragraphs"), _zeros(len(layout.sentences)))
    if options.duplicates in ("documents", "both"):
        _mark(directory, parts, DOCUMENT_KEYS, "documents", DUPLICATE)
    if options.near_duplicates:
        _mark(directory, parts, NEAR_KEYS, "documents", NEAR_DUPLICATE)
    for part in parts:
        _drop_with_documents(directory, part)
    if options.duplicates in ("paragraphs", "both"):
        _mark(directory, parts, PARAGRAPH_KEYS, "paragraphs", DUPLICATE)


def open_flags(
    directory: Path, part: str, of: Literal["documents", "paragraphs"], mode: Literal["r", "r+"]
) -> Flags:
    """Map the flags of a part into memory: 0 is kept, anything else is why it is dropped."""
    path = directory / key_index_file(part, f"drop_{of}")
    return cast(Flags, np.load(path, mmap_mode=mode))


def _mark(
    directory: Path,
    parts: Sequence[str],
    table: str,
    of: Literal["documents", "paragraphs"],
    bit: int,
) -> None:
    """Set a bit in the flag of every owner whose key an earlier owner has too."""
    total = sum(len(read_keys(directory, part, table)) for part in parts)
    for low, high in _ranges(total):
        keys, owners, part_indices = _gather(directory, parts, table, of, bit, (low, high))
        for index, repeated in _repeats(keys, owners, part_indices):
            if len(repeated):
                flags = open_flags(directory, parts[index], of, "r+")
                flags[repeated] |= bit


def _ranges(total: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of keys, both ends included, with about `_KEYS_AT_ONCE` of the keys in each."""
    count = -(-total // _KEYS_AT_ONCE)
    for index in range(count):
        yield index * _KEY_SPACE // count, (index + 1) * _KEY_SPACE // count - 1


def _gather(
    directory: Path,
    parts: Sequence[str],
    table: str,
    of: Literal["documents", "paragraphs"],
    bit: int,
    within: tuple[int, int],
) -> tuple[UInt64Array, npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return the keys in a range, with owner and part index, of owners without another bit set."""
    keys, owners, part_indices = [], [], []
    for index, part in enumerate(parts):
        rows = read_keys(directory, part, table)
        first = np.searchsorted(rows["key"], np.uint64(within[0]), side="left")
        last = np.searchsorted(rows["key"], np.uint64(within[1]), side="right")
        found = rows[first:last]
        flags = open_flags(directory, part, of, "r")[found["owner"]]
        found = found[flags & ~np.uint8(bit) == 0]
        keys.append(found["key"])
        owners.append(found["owner"])
        part_indices.append(np.full(len(found), index))
    return np.concatenate(keys), np.concatenate(owners), np.concatenate(part_indices)


def _repeats(
    keys: UInt64Array, owners: npt.NDArray[np.uint32], part_indices: npt.NDArray[np.int64]
) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Yield (part index, owners) of the keys that also occur earlier in reading order."""
    order = np.argsort(keys, kind="stable")
    earlier, later = order[:-1], order[1:]
    same = keys[later] == keys[earlier]
    # A document that has one key twice is not a duplicate of itself.
    same &= (owners[later] != owners[earlier]) | (part_indices[later] != part_indices[earlier])
    later = np.sort(later[same])
    for index in np.unique(part_indices[later]):
        yield int(index), np.unique(owners[later[part_indices[later] == index]])


def _drop_with_documents(directory: Path, part: str) -> None:
    layout = read_layout(directory, part)
    documents = open_flags(directory, part, "documents", "r")
    paragraphs = open_flags(directory, part, "paragraphs", "r+")
    paragraphs[:] = np.repeat(documents, layout.paragraphs)


def _zeros(size: int) -> Flags:
    return np.zeros(size, np.uint8)
