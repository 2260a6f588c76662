"""Copies: documents and paragraphs whose key an earlier one has, wherever in the input it is.

The keys of all parts are compared one range of values at a time, so that memory does not grow with
the corpus. What is earlier is decided by reading order alone, so the same copies are found for any
number of workers. A document is a near copy when any of its keys (see `near_duplicates.py`) is that
of an earlier document; a paragraph inside a document that is left out does not count as the first.
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

# Why a document or a paragraph is left out, as bits of its flag.
COPY, NEAR_COPY = 1, 2
# Keys in memory at a time, of 12 bytes; sorting them takes about as much again, twice.
_KEYS_AT_ONCE = 1 << 22
_KEY_SPACE = 1 << 64


def keys_of(texts: Sequence[str]) -> UInt64Array:
    """Return a 64-bit key of each text; among a billion texts a false copy has odds of 1 in 37."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, map(str.encode, texts)), np.uint64, len(texts))


def mark_duplicates(directory: Path, parts: Sequence[str], options: CleanOptions) -> None:
    """Write, beside the ledger of each part, a flag for every document and every paragraph."""
    for part in parts:
        layout = read_layout(directory, part)
        np.save(directory / key_index_file(part, "drop_documents"), _zeros(len(layout.splits)))
        np.save(directory / key_index_file(part, "drop_paragraphs"), _zeros(len(layout.sentences)))
    if options.duplicates in ("documents", "both"):
        _mark(directory, parts, DOCUMENT_KEYS, "documents", COPY)
    if options.near_duplicates:
        _mark(directory, parts, NEAR_KEYS, "documents", NEAR_COPY)
    for part in parts:
        _drop_with_documents(directory, part)
    if options.duplicates in ("paragraphs", "both"):
        _mark(directory, parts, PARAGRAPH_KEYS, "paragraphs", COPY)


def open_flags(
    directory: Path, part: str, of: Literal["documents", "paragraphs"], mode: Literal["r", "r+"]
) -> Flags:
    """Map the flags of a part into memory: 0 stays, anything else says why it is left out."""
    path = directory / key_index_file(part, f"drop_{of}")
    return cast(Flags, np.load(path, mmap_mode=mode))


def _mark(
    directory: Path,
    parts: Sequence[str],
    table: str,
    of: Literal["documents", "paragraphs"],
    bit: int,
) -> None:
    """Set a bit for every owner of a key that an earlier owner has too."""
    total = sum(len(read_keys(directory, part, table)) for part in parts)
    for low, high in _ranges(total):
        keys, owners, places = _gather(directory, parts, table, of, bit, (low, high))
        for place, repeated in _repeats(keys, owners, places):
            if len(repeated):
                flags = open_flags(directory, parts[place], of, "r+")
                flags[repeated] |= bit


def _ranges(total: int) -> Iterator[tuple[int, int]]:
    """Cut the key space so that about `_KEYS_AT_ONCE` of the keys fall into each range."""
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
    """Return the keys in a range, with owner and part, of what no other bit leaves out."""
    keys, owners, places = [], [], []
    for place, part in enumerate(parts):
        rows = read_keys(directory, part, table)
        first = np.searchsorted(rows["key"], np.uint64(within[0]), side="left")
        last = np.searchsorted(rows["key"], np.uint64(within[1]), side="right")
        found = rows[first:last]
        flags = open_flags(directory, part, of, "r")[found["owner"]]
        found = found[flags & ~np.uint8(bit) == 0]
        keys.append(found["key"])
        owners.append(found["owner"])
        places.append(np.full(len(found), place))
    return np.concatenate(keys), np.concatenate(owners), np.concatenate(places)


def _repeats(
    keys: UInt64Array, owners: npt.NDArray[np.uint32], places: npt.NDArray[np.int64]
) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Yield, part by part, the owners of keys that stand earlier in the reading order."""
    order = np.argsort(keys, kind="stable")
    earlier, later = order[:-1], order[1:]
    same = keys[later] == keys[earlier]
    # A document that has one key twice is no copy of itself.
    same &= (owners[later] != owners[earlier]) | (places[later] != places[earlier])
    later = np.sort(later[same])
    for place in np.unique(places[later]):
        yield int(place), np.unique(owners[later[places[later] == place]])


def _drop_with_documents(directory: Path, part: str) -> None:
    layout = read_layout(directory, part)
    documents = open_flags(directory, part, "documents", "r")
    paragraphs = open_flags(directory, part, "paragraphs", "r+")
    paragraphs[:] = np.repeat(documents, layout.paragraphs)


def _zeros(size: int) -> Flags:
    return np.zeros(size, np.uint8)
