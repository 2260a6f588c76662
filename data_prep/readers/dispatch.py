"""Read the documents of a slice, with the reader of its format.

The text of a document follows one convention for all formats: a newline ends a paragraph, and
nothing else does. A reader yields the documents that begin inside a slice of a file; a document
that continues past the end of the slice is read to its own end.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from data_prep.config.schema import InputOptions
from data_prep.readers.byte_window import line_location
from data_prep.readers.formats import Kind, kind_of
from data_prep.readers.jsonl import read_json_lines
from data_prep.readers.limits import fit_document
from data_prep.readers.sources import Slice, Source
from data_prep.readers.text import read_text
from data_prep.readers.wikiextractor import read_wikiextractor

# Readers yield the offset of a document, and its text or an iterator over the pieces of a long one.
Reader = Callable[[Slice, InputOptions, Counter[str]], Iterator[tuple[int, str | Iterator[str]]]]

_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    `offset` is the byte where it begins in its (decompressed) file; in Parquet and Arrow files it
    is the row. The parts of a divided document share it.
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
        counts: incremented: `broken` records, `divided` and `too_long` documents.

    Raises:
        UserError: for bytes that are not UTF-8 (with their offset), more broken records than
            `max_bad_records`, a damaged file of any format, a file that is not text, a missing
            field, and a long document where `long_documents` is "refuse".
    """
    kind = None if piece.source.shards else kind_of(piece.source, options)
    wrapped = options.newline == "space" or (options.newline == "auto" and kind == "text")
    finish = partial(_finish, kind=kind, wrapped=wrapped)
    # A blank block between blank lines is not a document.
    keep_blank = kind != "text" or options.documents == "file"
    limit = options.max_document_chars
    name = piece.source.name
    for offset, raw in _reader_of(kind)(piece, options, counts):
        if isinstance(raw, str) and len(raw) <= limit:
            if (text := finish(raw)) or keep_blank:
                yield Document(text, name, offset)
            continue
        pieces = (raw,) if isinstance(raw, str) else raw
        location = partial(_location, piece.source, kind, offset)
        for part in fit_document(pieces, location, options, counts, wrapped=wrapped):
            if (text := finish(part)) or keep_blank:
                yield Document(text, name, offset)


def _reader_of(kind: Kind | None) -> Reader:
    """Return the reader of a format; None stands for a dataset."""
    readers: dict[Kind | None, Reader] = {
        "text": read_text,
        "jsonl": read_json_lines,
        "wikiextractor": read_wikiextractor,
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
    return line_location(source, offset)


def _finish(text: str, kind: Kind | None, wrapped: bool) -> str:
    """Convert the text of a document, or a part of it, to the convention of documents."""
    if kind == "wikiextractor":
        text = html.unescape(text).strip()
    elif kind == "text":
        text = text.strip()
    return _unwrap(text) if wrapped and "\n" in text else text


def _unwrap(text: str) -> str:
    """Join the lines of each paragraph; blank lines separate paragraphs."""
    return "\n".join(paragraph.replace("\n", " ") for paragraph in _BLANK_LINES.split(text))
