"""Detect the format of a file by its first bytes and its name, and refuse what is not text."""

import codecs
import re
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.progress import log
from data_prep.readers.byte_window import read_head
from data_prep.readers.encodings import (
    BOM,
    as_utf8,
    contradicts,
    detect_encoding,
    is_utf8,
    marked_encoding,
)
from data_prep.readers.signatures import LFS_POINTER, Signature, signature_of, text_signature_of
from data_prep.readers.sources import Slice, Source
from data_prep.readers.storage.compression import (
    compression_suffix,
    is_compressed,
    refuse_unread,
    uncompressed_name,
)
from data_prep.readers.storage.magic import LFS_MARK
from data_prep.readers.structured.delimited import CSV_SUFFIXES, looks_delimited
from data_prep.readers.structured.json_values import json_kind

Kind = Literal[
    "text", "jsonl", "json", "csv", "wikiextractor", "wikiextractor_json", "parquet", "arrow"
]

_HEAD_BYTES = 1 << 16
# Patterns for whole formats are searched for in fewer bytes.
_START_BYTES = 4096
_SUFFIXES: dict[str, Kind] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_MAGIC: dict[bytes, Kind] = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    # The marker before each message of an Arrow stream.
    b"\xff\xff\xff\xff": "arrow",
}
_COLUMNAR = ("parquet", "arrow")
# These are read from their beginning to their end, by the slice that begins with the file.
_UNDIVIDED = ("csv", "json")
# Only WikiExtractor's JSON has addresses like this one; it escapes entities, as its text does.
_WIKIEXTRACTOR_JSON = re.compile(
    rb'\{"id": ?"?\d+"?, ?(?:"revid": ?"?\d*"?, ?)?"url": ?"[^"\n]*\?curid=\d+", ?"title":'
)
# Control characters that text does not contain; not NUL, which does occur in scraped text.
_BINARY_BYTES = bytes((*range(1, 8), *range(14, 26)))
_BINARY_SHARE = 0.02
_NUL_SHARE = 0.3
# So many lines without a blank one are worth a warning: of a long text, and of a short one.
_FEW_LINES = 10
_MANY_LINES = 200
_ANY_BLANK_LINE = re.compile(rb"\n\s*\n|\r\s*\r|\n(?:\xe3\x80\x80|\xc2\xa0|[ \t])+\r?\n")


@dataclass(frozen=True, slots=True)
class Format:
    """How a file is read: its kind, its encoding, and whether carriage returns end its lines."""

    kind: Kind
    encoding: str = "utf-8"
    cr_lines: bool = False


def format_of(source: Source, options: InputOptions) -> Format:
    """Return the format of a file: that of the options, or the detected one.

    Raises:
        UserError: for a file that cannot have that format, such as an image in a folder of text.
    """
    return _examine(source, options)[0]


def check_format(source: Source, options: InputOptions) -> Format:
    """Return the format as `format_of` does, and warn of many lines without a blank one.

    Raises:
        UserError: as `format_of`.
    """
    form, head = _examine(source, options)
    if form.kind == "text" and options.documents == "blank_line":
        lines = max(head.count(b"\n"), head.count(b"\r"))
        fewest = _FEW_LINES if len(head) >= _HEAD_BYTES // 2 else _MANY_LINES
        if lines >= fewest and not _ANY_BLANK_LINE.search(head):
            log(
                f"{source.path} has no blank line among its first {lines:,} lines, so that they "
                "are one document: if each line is a document, set input.documents=line."
            )
    return form


def _examine(source: Source, options: InputOptions) -> tuple[Format, bytes]:
    """Return the format of a file, and its first bytes as UTF-8."""
    raw = read_head(source, _HEAD_BYTES)
    if raw.startswith(LFS_MARK):
        raise _refusal(source, LFS_POINTER)
    if kind := _columnar_kind(source, raw, options):
        return Format(kind), raw
    encoding = _encoding_of(source, raw, options)
    head = as_utf8(raw, encoding).removeprefix(BOM)
    start = head[:_START_BYTES].lstrip()
    signature = signature_of(raw)
    _refuse_binary(source, raw, head, signature)
    kind = _detect(source, start, signature, options) if options.kind == "auto" else options.kind
    is_json = kind == "wikiextractor" and start.startswith(b"{")
    if is_json or (kind == "jsonl" and _WIKIEXTRACTOR_JSON.match(start)):
        kind = "wikiextractor_json"
    return Format(kind, encoding, cr_lines=b"\r" in head and b"\n" not in head), head


def readable_slice(piece: Slice, form: Format) -> Slice | None:
    """Return the slice with its file's encoding, or None if another slice reads all of the file."""
    source = replace(piece.source, encoding=form.encoding, cr_lines=form.cr_lines)
    if form.kind not in _UNDIVIDED and form.encoding == "utf-8":
        return Slice(source, piece.start, piece.stop)
    return None if piece.start else Slice(source, 0, source.size)


def _columnar_kind(source: Source, head: bytes, options: InputOptions) -> Kind | None:
    kind: Kind | None = None
    if options.kind == "auto":
        kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
        kind = kind or _SUFFIXES.get(_suffix(source.name))
    elif options.kind in _COLUMNAR:
        kind = options.kind
    if kind and is_compressed(source.name):
        raise UserError(
            f"{source.path} is a compressed {kind.capitalize()} file, and such files are read from "
            "their end: decompress it."
        )
    return kind


def _encoding_of(source: Source, head: bytes, options: InputOptions) -> str:
    if options.encoding == "auto":
        return detect_encoding(head)
    if marked := marked_encoding(head):
        return marked
    encoding = codecs.lookup(options.encoding).name
    if contradicts(head, encoding):
        raise UserError(
            f"{source.path} is UTF-8, and input.encoding is {options.encoding}: set it to auto, or "
            "give such files an input of their own."
        )
    return encoding


def _detect(
    source: Source, start: bytes, signature: Signature | None, options: InputOptions
) -> Kind:
    if start.startswith(b"<doc "):
        return "wikiextractor"
    if signature := signature or text_signature_of(start):
        raise _refusal(source, signature)
    suffix = _suffix(source.name)
    if found := json_kind(start, suffix):
        return found
    if suffix in CSV_SUFFIXES:
        return "csv"
    text = start.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if delimiter := looks_delimited(text, options.text_field):
        raise UserError(
            f"{source.path} is a table, by the {delimiter}s in its first lines: set input.kind=csv "
            "to read one of its columns, or input.kind=text if it is prose."
        )
    return "text"


def _refuse_binary(source: Source, raw: bytes, head: bytes, signature: Signature | None) -> None:
    refuse_unread(source.path, raw)
    if suffix := compression_suffix(raw):
        raise UserError(
            f"{source.path} is compressed, by its first bytes: give it a name ending in {suffix}, "
            "so that it is decompressed while it is read."
        )
    if signature and signature.binary:
        raise _refusal(source, signature)
    if raw.startswith(tuple(_MAGIC)) or _looks_binary(head[:_START_BYTES]):
        raise UserError(
            f"{source.path} is not text, by its first bytes{_nul_note(head)}: leave it out with "
            "input.pattern, or set input.encoding if it is UTF-16 without a byte-order mark."
        )


def _nul_note(head: bytes) -> str:
    many = head.count(0) > _NUL_SHARE * len(head)
    return ", many of which are NUL, as in a file that was not written to its end" if many else ""


def _refusal(source: Source, signature: Signature) -> UserError:
    if signature.binary:
        return UserError(
            f"{source.path} is {signature.name}, by its first bytes, and is not text: "
            f"{signature.remedy}."
        )
    return UserError(
        f"{source.path} is {signature.name}, by its first bytes: {signature.remedy}, or set "
        "input.kind=text to read it as it is."
    )


def _suffix(name: str) -> str:
    return PurePath(uncompressed_name(name)).suffix.lower()


def _looks_binary(head: bytes) -> bool:
    controls = len(head) - len(head.translate(None, _BINARY_BYTES))
    return (controls > _BINARY_SHARE * len(head) and not is_utf8(head)) or head.count(
        0
    ) > _NUL_SHARE * len(head)
