"""The text of a preparation benchmark: JSON lines, from a corpus or made by repeating one.

All sides read the same files, so that none gains by its reader of one format. Where there is
less text than required, it is repeated with keyed changes: about one word in thirty gets another
letter, so that copies are not duplicates and new words keep appearing, as in natural text.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.config.schema import InputOptions
from data_prep.counter_rng import integers_below, key_of, uniform
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks, list_sources

SAMPLE = Path("sample")  # the shipped text
PART_BYTES = 8_000_000
# A word has about five letters, so this changes a word in thirty.
_CHANGED_LETTERS = 1 / 150
_BASE_BYTES = 8_000_000


@dataclass(frozen=True, kw_only=True)
class Text:
    """JSON lines in a folder of parts; `size` counts the bytes of text alone, as UTF-8."""

    folder: Path
    size: int
    documents: int


def write_text(folder: Path, paths: Sequence[Path], language: str, limit_bytes: int) -> Text:
    """Write up to so many bytes of the corpora at `paths`, in reading order.

    Raises:
        UserError: when there is no text in them.
    """
    return _write_parts(folder, _read_texts(paths, language), limit_bytes)


def write_repeated(folder: Path, paths: Sequence[Path], language: str, size_bytes: int) -> Text:
    """Write so many bytes: the beginning of the corpora, repeated with keyed changes."""
    base: list[str] = []
    room = min(_BASE_BYTES, size_bytes)
    for text in _read_texts(paths, language):
        if room <= 0:
            break
        base.append(text)
        room -= len(text.encode())
    return _write_parts(folder, _copies(base), size_bytes)


def altered(texts: Sequence[str], copy: int) -> list[str]:
    """Return the texts with some letters replaced by others of theirs; copy 0 has no changes.

    Letters are exchanged for lower-case letters, in any script, so lengths and word boundaries
    stay. The changes depend on the copy's number and on each letter's position alone.
    """
    if copy == 0:
        return list(texts)
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).copy()
    letters = np.flatnonzero(_are_letters(codes))
    key = key_of("altered", copy)
    chosen = letters[uniform(key, np.arange(len(letters))) < _CHANGED_LETTERS]
    drawn = integers_below(key_of("letters", copy), np.arange(len(chosen)), max(len(letters), 1))
    codes[chosen] = codes[letters[drawn]]
    ends = np.cumsum([len(text) for text in texts])
    return [part.tobytes().decode("utf-32-le") for part in np.split(codes, ends[:-1])]


def _are_letters(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    distinct, where = np.unique(codes, return_inverse=True)
    letters = [c.isalpha() and not c.isupper() for c in map(chr, distinct.tolist())]
    return np.array(letters, np.bool_)[where]


def _read_texts(paths: Sequence[Path], language: str) -> Iterator[str]:
    """Yield the documents of files and folders that are not empty."""
    documents = "file" if tuple(paths) == (SAMPLE,) else "blank_line"
    tree = {"paths": tuple(paths), "language": language, "documents": documents}
    options = InputOptions.model_validate(tree)
    for task in cut_into_tasks(list_sources({"text": options})):
        for piece in task:
            for document in read_documents(piece, options, Counter()):
                if document.text.strip():
                    yield document.text


def _copies(base: Sequence[str]) -> Iterator[str]:
    copy = 0
    while base:
        yield from altered(base, copy)
        copy += 1


def _write_parts(folder: Path, texts: Iterable[str], limit_bytes: int) -> Text:
    """Write documents until the limit is reached, in parts for several processes."""
    folder.mkdir(parents=True)
    size = documents = 0
    for text in texts:
        path = folder / f"part_{size // PART_BYTES:05d}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        size += len(text.encode())
        documents += 1
        if size >= limit_bytes:
            break
    if not documents:
        raise UserError("There is no text to measure with: correct --input.")
    return Text(folder=folder, size=size, documents=documents)
