"""The text, recipe and tokenizer of a preparation benchmark.

The text is JSON lines, from a corpus or made by repeating one. All sides read the same files, so
that none gains by its reader of one format. Where there is less text than required, it is repeated
with keyed changes: about one word in thirty gets another letter, so that copies are not duplicates
and new words keep appearing, as in natural text.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.config.schema import CorpusRecipe, InputOptions
from data_prep.counter_rng import integers_below, key_of, uniform
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks, list_sources
from data_prep.tokenize.backends import choose_backend
from data_prep.tokenizers.build import ensure_tokenizer
from data_prep.tokenizers.folder import load_tokenizer

_PART_BYTES = 8_000_000
_REPEATED_BYTES = 8_000_000
_CHANGED_LETTERS = 1 / 150  # a word has about five letters, so this changes a word in thirty


@dataclass(frozen=True, kw_only=True)
class Text:
    """JSON lines in a folder of parts; `size` counts the bytes of text alone, as UTF-8."""

    folder: Path
    size: int
    documents: int


def make_job(
    arguments: argparse.Namespace, size_mb: float, scratch: Path, repeat: bool = False
) -> tuple[Text, dict[str, Any]]:
    """Write the text and its recipe, make the tokenizer once, and return what sides are given."""
    folder, size = scratch / f"text_{size_mb:g}", int(size_mb * 1e6)
    text = write_text(folder, arguments.input, arguments.language, size, repeat)
    tokenizer: dict[str, Any] = {"vocab_size": 6000 if arguments.quick else 16384}
    if arguments.tokenizer:
        tokenizer = {"kind": "existing", "vocabulary": str(arguments.tokenizer)}
    elif arguments.vocabulary:
        tokenizer = {"vocabulary": str(arguments.vocabulary)}
    # A short text must have enough validation documents too; speed does not depend on it.
    share = min(0.5, max(0.01, 20 / text.documents))
    tree = {
        "input": {"path": str(text.folder), "kind": "jsonl", "language": arguments.language},
        "tokenizer": {"path": str(scratch / "tokenizer"), **tokenizer},
        "corpus": {"path": str(scratch / "corpus"), "validation_share": share},
    }
    recipe = CorpusRecipe.model_validate(tree)
    ensure_tokenizer(recipe, list_sources(recipe.corpora))
    (scratch / "recipe.yaml").write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    return text, {
        "text": str(text.folder),
        "recipe": str(scratch / "recipe.yaml"),
        "tokenizer": str(recipe.tokenizer.path),
        "language": arguments.language,
        "workers": arguments.workers,
    }


def is_wordpiece(job: Mapping[str, Any]) -> bool:
    """Tell whether nanotoken computes the ids of a job."""
    return choose_backend(load_tokenizer(Path(job["tokenizer"])).backend).name == "nanotoken"


def write_text(
    folder: Path, paths: Sequence[Path] | None, language: str, size_bytes: int, repeat: bool
) -> Text:
    """Write so many bytes of the corpora at `paths`, or of the shipped sample, in reading order.

    With `repeat`, or from the sample, their beginning is repeated with changes as often as needed;
    otherwise a shorter corpus is written once.

    Raises:
        UserError: when there is no text in them.
    """
    texts = _read_texts(paths, language)
    if repeat or not paths:
        texts = _copies(list(_up_to(texts, min(_REPEATED_BYTES, size_bytes))))
    folder.mkdir(parents=True)
    size = documents = 0
    for text in _up_to(texts, size_bytes):
        with (folder / f"part_{size // _PART_BYTES:05d}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        size += len(text.encode())
        documents += 1
    if not documents:
        raise UserError("There is no text to measure with: correct --input.")
    return Text(folder=folder, size=size, documents=documents)


def altered(texts: Sequence[str], copy: int) -> list[str]:
    """Return the texts with some letters replaced by others of theirs; copy 0 has no changes.

    Letters are exchanged for lower-case letters, in any script, so lengths and word boundaries
    stay. The changes depend on the copy's number and on each letter's position alone.
    """
    if copy == 0:
        return list(texts)
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).copy()
    distinct, where = np.unique(codes, return_inverse=True)
    are_letters = [c.isalpha() and not c.isupper() for c in map(chr, distinct.tolist())]
    letters = np.flatnonzero(np.array(are_letters, np.bool_)[where])
    key = key_of("altered", copy)
    chosen = letters[uniform(key, np.arange(len(letters))) < _CHANGED_LETTERS]
    drawn = integers_below(key_of("letters", copy), np.arange(len(chosen)), max(len(letters), 1))
    codes[chosen] = codes[letters[drawn]]
    ends = np.cumsum([len(text) for text in texts])
    return [part.tobytes().decode("utf-32-le") for part in np.split(codes, ends[:-1])]


def _read_texts(paths: Sequence[Path] | None, language: str) -> Iterator[str]:
    """Yield the documents of files and folders, or of the shipped sample, that are not empty."""
    tree = {"paths": paths or [Path("sample")], "language": language}
    options = InputOptions.model_validate(tree | {"documents": "blank_line" if paths else "file"})
    for task in cut_into_tasks(list_sources({"text": options})):
        for piece in task:
            for document in read_documents(piece, options, Counter()):
                if document.text.strip():
                    yield document.text


def _up_to(texts: Iterator[str], limit_bytes: int) -> Iterator[str]:
    """Yield texts until so many bytes are reached."""
    size = 0
    while size < limit_bytes and (text := next(texts, None)) is not None:
        size += len(text.encode())
        yield text


def _copies(base: Sequence[str]) -> Iterator[str]:
    copy = 0
    while base:
        yield from altered(base, copy)
        copy += 1
