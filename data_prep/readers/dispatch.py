"""Read the documents of a slice, with the reader of its format.

The text of a document follows one convention for all formats: a newline ends a paragraph, and
nothing else does. A reader yields the documents that begin inside a slice of a file; a document
that continues past the end of the slice is read to its own end.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_prep.config.schema import InputOptions
from data_prep.readers.byte_window import line_location
from data_prep.readers.formats import Kind, format_of, readable_slice
from data_prep.readers.limits import fit_document
from data_prep.readers.sources import Slice, Source
from data_prep.readers.storage.compression import check_size
from data_prep.readers.structured.delimited import read_delimited
from data_prep.readers.structured.json_records import read_json_records
from data_prep.readers.structured.jsonl import read_json_lines
from data_prep.readers.text import read_text
from data_prep.readers.wikiextractor import read_wikiextractor, unescape
from data_prep.readers.wikiextractor_json import read_wikiextractor_json

# Readers yield the offset of a document, and its text or an iterator over the pieces of a long one.
Reader = Callable[[Slice, InputOptions, Counter[str]], Iterator[tuple[int, str | Iterator[str]]]]

_BLANK_LINES = re.compile(r"\n\s*\n")


class Document(NamedTuple):
    """One document.

    `offset` is the byte where it begins in its (decompressed) file; in Parquet and Arrow files it
    is the row, in CSV files the line. The parts of a divided document share it.
    """

    text: str
    source: str
    offset: int


def read_documents(piece: Slice, options: InputOptions, counts: Counter[str]) -> Iterator[Document]:
    """Yield the documents that begin in a slice; some may be empty.

    Memory holds one document of at most `max_document_chars`, and a few blocks of the file.

    Args:
        piece: what to read.
        options: how to read it.
        counts: incremented: `broken` records, records with `null_text`, `divided` and `too_long`
            documents, and those with `replaced` bytes.

    Raises:
        UserError: for bytes that are not UTF-8 (with their offset), more broken records than
            `max_bad_records`, a damaged file of any format, a file that is not text, a missing
            field, a file that has changed its size, and a long document where `long_documents` is
            "refuse".
    """
    kind: Kind | None = None
    if not piece.source.shards:
        if isinstance(piece.source.path, Path):
            check_size(piece.source.path, piece.source.size)
        form = format_of(piece.source, options)
        readable = readable_slice(piece, form)
        if readable is None:
            return
        kind, piece = form.kind, readable
    wrapped = options.newline == "space" or (options.newline == "auto" and kind == "text")
    finish = _finisher(kind, wrapped)
    # A blank block between blank lines is not a document.
    keep_blank = kind != "text" or options.documents == "file"
    limit = options.max_document_chars
    name = piece.source.name
    replaces = options.errors == "replace"
    for offset, raw in _reader_of(kind)(piece, options, counts):
        if isinstance(raw, str) and len(raw) <= limit:
            if (text := finish(raw)) or keep_blank:
                if replaces and "\ufffd" in text:
                    counts["replaced"] += 1
                yield Document(text, name, offset)
            continue
        pieces = (raw,) if isinstance(raw, str) else raw
        location = partial(_location, piece.source, kind, offset)
        for part in fit_document(pieces, location, options, counts, wrapped=wrapped):
            if (text := finish(part)) or keep_blank:
                if replaces and "\ufffd" in text:
                    counts["replaced"] += 1
                yield Document(text, name, offset)


def _reader_of(kind: Kind | None) -> Reader:
    """Return the reader of a format; None stands for a dataset."""
    readers: dict[Kind | None, Reader] = {
        "text": read_text,
        "jsonl": read_json_lines,
        "json": read_json_records,
        "csv": read_delimited,
        "wikiextractor": read_wikiextractor,
        "wikiextractor_json": read_wikiextractor_json,
    }
    if kind in readers:
        return readers[kind]
    # Here, because Arrow takes 50 MB of memory that most corpora do not need.
    if kind == "parquet":
        from data_prep.readers.tables.parquet import read_parquet as columnar
    elif kind == "arrow":
        from data_prep.readers.tables.arrow import read_arrow as columnar
    else:
        from data_prep.readers.tables.huggingface import read_dataset as columnar
    return columnar


def _location(source: Source, kind: Kind | None, offset: int) -> str:
    """Return where a document begins, for an error message."""
    if kind in ("parquet", "arrow", None):
        return f"row {offset:,} of {source.name}"
    if kind == "csv":
        return f"line {offset:,} of {source.path}"
    return line_location(source, offset)


def _finisher(kind: Kind | None, wrapped: bool) -> Callable[[str], str]:
    """Return what converts the text of a document, or a part of it, for its kind."""
    if kind in ("wikiextractor", "wikiextractor_json"):
        return (lambda text: _unwrap(unescape(text).strip())) if wrapped else _unescape_and_strip
    if kind == "text":
        return (lambda text: _unwrap(text.strip())) if wrapped else str.strip
    return _unwrap if wrapped else _unchanged


def _unescape_and_strip(text: str) -> str:
    return unescape(text).strip()


def _unchanged(text: str) -> str:
    return text


def _unwrap(text: str) -> str:
    """Join the lines of each paragraph; blank lines separate paragraphs."""
    if "\n" not in text:
        return text
    return "\n".join(paragraph.replace("\n", " ") for paragraph in _BLANK_LINES.split(text))
