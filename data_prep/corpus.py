"""Readers: files in, documents out, one at a time.

A document's text follows one convention whatever it came from: a newline ends a paragraph, and
nothing else does. Readers take a slice of a file and yield the documents that begin inside it;
a document that runs over the end of the slice is read to its own end.
"""

import gzip
import html
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from data_prep.errors import UserError
from data_prep.lines import Line, line_number, read_head, read_lines
from data_prep.options import InputOptions
from data_prep.sources import Slice, Source

Kind = Literal["text", "jsonl", "wikiextractor"]

_PEEK_BYTES = 4096
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_DOC_OPEN = re.compile(r'<doc(?=\s)(?:[^>]*?\stitle="([^"]*)")?[^>]*>\s*$')
_DOC_CLOSE = "</doc>"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Document:
    """One document; `offset` is the byte where it begins in its (decompressed) file."""

    text: str
    source: str
    offset: int


def read_documents(piece: Slice, options: InputOptions, counts: Counter[str]) -> Iterator[Document]:
    """Yield the documents that begin in a slice; some may be empty, the caller counts them.

    Memory holds one document at a time.

    Args:
        piece: what to read.
        options: how to read it.
        counts: is added to: `broken` records, `divided` and `too_long` documents.

    Raises:
        UserError: for bytes that are not UTF-8 (naming the byte offset), a broken JSON line or
            WikiExtractor file (naming the line), a damaged gzip file, and a document above
            `max_document_chars`.
    """
    kind = options.kind if options.kind != "auto" else detect_kind(piece.source)
    reader = {"text": _read_text, "jsonl": _read_jsonl, "wikiextractor": _read_wikiextractor}[kind]
    wrapped = options.newline == "space" or (options.newline == "auto" and kind == "text")
    try:
        for offset, text in reader(piece, options):
            yield Document(_unwrap(text) if wrapped else text, piece.source.name, offset)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{piece.source.path} is not a whole gzip file ({error}): copy it again or remove it."
        ) from error


def detect_kind(source: Source) -> Kind:
    """Tell the format of a file from its name and its first bytes."""
    head = read_head(source, _PEEK_BYTES).lstrip()
    if head.startswith(b"<doc "):
        return "wikiextractor"
    if source.name.endswith(_JSON_SUFFIXES) or re.match(rb'\{\s*"', head):
        return "jsonl"
    return "text"


def _read_text(piece: Slice, options: InputOptions) -> Iterator[tuple[int, str]]:
    """Yield the file as one document, or its blank-line-separated blocks."""
    if options.documents == "blank_line":
        yield from _read_blocks(piece, options)
    elif piece.start == 0:
        whole = _Block(piece.source, options)
        for line in _lines(piece, options):
            whole.add(line)
        yield 0, whole.text()


def _read_blocks(piece: Slice, options: InputOptions) -> Iterator[tuple[int, str]]:
    """Yield the blocks of a slice.

    A block belongs to the slice that holds the blank line before it, and the start of the file
    counts as one. So each block has exactly one owner, wherever the cut falls.
    """
    ours = piece.start == 0
    block: _Block | None = None
    for line in _lines(piece, options):
        if line.text.strip():
            if ours:
                block = block or _Block(piece.source, options, line.offset)
                block.add(line)
            continue
        if block:
            yield block.offset, block.text()
        ours, block = piece.holds(line.offset), None
        if not ours:
            return
    if block:
        yield block.offset, block.text()


def _read_jsonl(piece: Slice, options: InputOptions) -> Iterator[tuple[int, str]]:
    """Yield the text of each JSON line that begins in the slice."""
    for line in _lines(piece, options):
        if not piece.holds(line.offset):
            return
        if line.text.strip():
            text = _text_of_json(piece.source, line, options)
            if len(text) > options.max_document_chars:
                raise _too_long(piece.source, line.offset, options)
            yield line.offset, text.replace("\r\n", "\n").replace("\r", "\n")


def _text_of_json(source: Source, line: Line, options: InputOptions) -> str:
    try:
        record = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{_place(source, line.offset)} is not JSON ({error}): correct or remove it."
        ) from error
    text = record.get(options.text_field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise UserError(
            f"{_place(source, line.offset)} has no text under the key {options.text_field!r}: "
            "set input.text_field to the key that holds it."
        )
    # JSON can escape half a surrogate pair, which no tokenizer and no UTF-8 file accepts.
    if options.errors == "strict" and _LONE_SURROGATE.search(text):
        raise UserError(
            f"{_place(source, line.offset)} escapes half a surrogate pair, which is not Unicode: "
            "correct it, or put U+FFFD in such places with --errors replace."
        )
    return _LONE_SURROGATE.sub("\ufffd", text)


def _read_wikiextractor(piece: Slice, options: InputOptions) -> Iterator[tuple[int, str]]:
    """Yield the text between `<doc ...>` and `</doc>`, entities unescaped, title removed.

    WikiExtractor repeats the title as the first line of every article; it is not a sentence,
    and an article that has nothing else is empty.
    """
    block: _Block | None = None
    title = ""
    for line in _lines(piece, options):
        if head := _DOC_OPEN.match(line.text):
            if block:
                raise _unclosed(piece.source, block.offset)
            if not piece.holds(line.offset):
                return
            block, title = _Block(piece.source, options, line.offset), head[1] or ""
        elif block and line.text.startswith(_DOC_CLOSE):
            yield block.offset, _without_title(html.unescape(block.text()), html.unescape(title))
            block = None
        elif block:
            block.add(line)
        elif piece.start == 0 and line.text.strip():
            raise UserError(
                f"{_place(piece.source, line.offset)} is outside <doc> and </doc>: this is not a "
                "WikiExtractor file; set input.kind."
            )
        elif not piece.holds(line.offset):
            return
    if block:
        raise _unclosed(piece.source, block.offset)


def _without_title(text: str, title: str) -> str:
    first, _, rest = text.partition("\n")
    return rest.strip() if first.strip() == title.strip() else text.strip()


class _Block:
    """The lines of one document, refused as soon as they are too many characters."""

    def __init__(self, source: Source, options: InputOptions, offset: int = 0) -> None:
        self.offset = offset
        self._source = source
        self._options = options
        self._lines: list[str] = []
        self._chars = 0

    def add(self, line: Line) -> None:
        self._lines.append(line.text)
        self._chars += len(line.text) + 1
        if self._chars > self._options.max_document_chars + 1:
            raise _too_long(self._source, self.offset, self._options)

    def text(self) -> str:
        return "\n".join(self._lines)


def _lines(piece: Slice, options: InputOptions) -> Iterator[Line]:
    return read_lines(piece, options.errors, options.max_document_chars)


def _unwrap(text: str) -> str:
    """Make the lines of each paragraph one line; blank lines separate paragraphs."""
    return "\n".join(paragraph.replace("\n", " ") for paragraph in _BLANK_LINES.split(text))


def _place(source: Source, offset: int) -> str:
    return f"Line {line_number(source, offset)} of {source.path}"


def _too_long(source: Source, offset: int, options: InputOptions) -> UserError:
    return UserError(
        f"The document that begins at line {line_number(source, offset)} of {source.path} has more "
        f"than {options.max_document_chars} characters: divide it, or raise "
        "input.max_document_chars."
    )


def _unclosed(source: Source, offset: int) -> UserError:
    return UserError(
        f"The <doc> at line {line_number(source, offset)} of {source.path} is never closed by "
        "</doc>: the file is damaged; extract it again."
    )
