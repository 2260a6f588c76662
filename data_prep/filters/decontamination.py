"""Decontamination: find documents that share an n-gram of tokens with evaluation text.

The evaluation text is held as sorted 64-bit hashes of its n-grams, with a bitmap in front of them
that rejects nearly every n-gram of a clean corpus.
"""

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import UInt64Array
from data_prep.dedup.rolling_hash import hash_ngrams
from data_prep.errors import UserError
from data_prep.text_batches import batch_by_chars
from data_prep.tokenize.backends import IdArray

Encode = Callable[[Sequence[str]], list[IdArray]]

# A longer field of a test set is a quotation mark without its pair.
_MAX_FIELD_CHARS = 1 << 17
# Texts are tokenized in batches of about this many characters.
_BATCH_CHARS = 1 << 20
# Tokens processed together: their hashes stay in the processor's cache.
_BLOCK = 1 << 15
# Least number of bits of the bitmap for each n-gram: 3 to 6 % of other n-grams pass it.
_BITS_A_NGRAM = 16


class EvaluationText:
    """The n-grams of evaluation files, about 12 bytes each.

    Args:
        paths: the files. Of `.json` and `.jsonl` every string is a text, at any depth; of
            `.csv` every field; of all others every tab-separated field of a line.
        ngram: how many consecutive tokens two texts must share.
        encode: from texts to their token ids, exactly as the corpus has them: cleaned, split
            into sentences, the ids of these joined. No reference to it is kept.

    Attributes:
        num_ngrams: how many different n-grams there are.

    Raises:
        UserError: for a file that is missing or cannot be read, and when there is no n-gram.
    """

    def __init__(self, paths: Sequence[Path], ngram: int, encode: Encode) -> None:
        self.ngram = ngram
        self._hashes = self._collect(paths, encode)
        self.num_ngrams = len(self._hashes)
        if not self.num_ngrams:
            raise UserError(
                f"The files of clean.evaluation ({', '.join(map(str, paths))}) hold no text of "
                f"{ngram} tokens: correct them, or lower clean.evaluation_ngram."
            )
        bits = max(10, (self.num_ngrams * _BITS_A_NGRAM - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._bitmap = _bitmap(self._hashes >> self._shift, bits)

    def overlapping(self, ids: IdArray, bounds: Int64Array) -> npt.NDArray[np.bool_]:
        """Return a mask of the documents that contain an n-gram of the evaluation text.

        Args:
            ids: token ids of all documents, concatenated.
            bounds: shape (documents + 1,), never falling; document j is
                `ids[bounds[j] : bounds[j + 1]]`. An n-gram across a bound does not count.

        Returns:
            Shape (documents,).
        """
        found = np.zeros(len(bounds) - 1, np.bool_)
        starts = np.concatenate(
            [
                begin + self._matches(ids[begin : begin + _BLOCK + self.ngram - 1])
                for begin in range(0, max(1, len(ids)), _BLOCK)
            ]
        )
        # Of several documents that begin at one position, the last is the one with tokens.
        owners = np.searchsorted(bounds, starts, side="right") - 1
        inside = (owners >= 0) & (owners < len(found))
        starts, owners = starts[inside], owners[inside]
        found[owners[starts + self.ngram <= bounds[owners + 1]]] = True
        return found

    def _matches(self, ids: IdArray) -> Int64Array:
        """Return the positions at which n-grams of the evaluation text begin."""
        hashes = hash_ngrams(ids, self.ngram)
        slots = hashes >> self._shift
        bits = self._bitmap[slots >> np.uint64(3)] >> (slots & np.uint64(7)).astype(np.uint8)
        likely = np.flatnonzero(bits & np.uint8(1))
        hashes = hashes[likely]
        nearest = np.searchsorted(self._hashes, hashes)
        nearest[nearest == self.num_ngrams] = 0
        starts: Int64Array = likely[self._hashes[nearest] == hashes]
        return starts

    def _collect(self, paths: Sequence[Path], encode: Encode) -> UInt64Array:
        """Return the different hashes, sorted."""
        batches = [np.empty(0, np.uint64)]
        texts = itertools.chain.from_iterable(map(_texts, paths))
        for batch in batch_by_chars(texts, _BATCH_CHARS):
            hashes = [hash_ngrams(ids, self.ngram) for ids in encode(batch)]
            batches.append(np.unique(np.concatenate(hashes)))
        return np.unique(np.concatenate(batches))


def _bitmap(slots: UInt64Array, bits: int) -> npt.NDArray[np.uint8]:
    """Return a bitmap of 2^bits bits in which the given slots are set; bit i is in byte i / 8."""
    bitmap = np.zeros(1 << (bits - 3), np.uint8)
    masks = np.uint8(1) << (slots & np.uint64(7)).astype(np.uint8)
    np.bitwise_or.at(bitmap, slots >> np.uint64(3), masks)
    return bitmap


def _texts(path: Path) -> Iterator[str]:
    """Yield the texts of one evaluation file, without blank ones."""
    readers = {".json": _json_texts, ".jsonl": _json_line_texts, ".csv": _csv_texts}
    try:
        # The csv module requires this newline; to the other formats it makes no difference.
        with path.open(encoding="utf-8-sig", newline="") as file:
            texts = readers.get(path.suffix, _line_texts)(file)
            yield from (text for text in texts if text.strip())
    except OSError as error:
        raise UserError(
            f"The file {path} of clean.evaluation cannot be read ({error.strerror}): correct the "
            "path."
        ) from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(
            f"The file {path} of clean.evaluation cannot be parsed ({error}): give UTF-8 text, "
            "JSON, JSON lines, TSV or CSV."
        ) from error


def _line_texts(file: TextIO) -> Iterator[str]:
    return (field for line in file for field in line.split("\t"))


def _csv_texts(file: TextIO) -> Iterator[str]:
    # The limit is one of the process, which the reader of a corpus raises.
    csv.field_size_limit(_MAX_FIELD_CHARS)
    return (field for row in csv.reader(file) for field in row)


def _json_texts(file: TextIO) -> Iterator[str]:
    """Yield the strings of a JSON file; many datasets name JSON lines `.json`."""
    try:
        yield from _strings(json.load(file))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        file.seek(0)
        yield from _json_line_texts(file)


def _json_line_texts(file: TextIO) -> Iterator[str]:
    for line in file:
        if line.strip():
            yield from _strings(json.loads(line))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
