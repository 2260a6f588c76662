"""Detect the format of a file by its name and first bytes, and refuse what is not text."""

import re
from typing import Literal

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.byte_window import BOM, read_head
from data_prep.readers.compression import compression_suffix, is_compressed, uncompressed_name
from data_prep.readers.sources import Source

Kind = Literal["text", "jsonl", "wikiextractor", "parquet", "arrow"]

_HEAD_BYTES = 4096
_SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MAGIC: dict[bytes, Kind] = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    # The marker before each message of an Arrow stream.
    b"\xff\xff\xff\xff": "arrow",
}
_COLUMNAR = ("parquet", "arrow")
# Control characters that text does not contain; not NUL, which does occur in scraped text.
_BINARY_BYTES = bytes((*range(1, 8), *range(14, 26)))
_BINARY_SHARE = 0.02
_NUL_SHARE = 0.3
_OTHERS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF-", b"PK\x03\x04", b"\x7fELF", b"SQLite f")


def kind_of(source: Source, options: InputOptions) -> Kind:
    """Return the format of a file: that of the options, or the detected one.

    Raises:
        UserError: for a file that cannot have that format, such as an image in a folder of text.
    """
    head = read_head(source, _HEAD_BYTES)
    kind = options.kind if options.kind != "auto" else _detect(source.name, head)
    if kind not in _COLUMNAR:
        _refuse_binary(source, head)
    elif is_compressed(source.name):
        raise UserError(
            f"{source.path} is a compressed {kind.capitalize()} file, and such files are read from "
            "their end: decompress it."
        )
    return kind


def _detect(name: str, head: bytes) -> Kind:
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    for suffix, kind in _SUFFIXES.items():
        if uncompressed_name(name).endswith(suffix):
            return kind
    start = head.removeprefix(BOM).lstrip()
    if start.startswith(b"<doc "):
        return "wikiextractor"
    return "jsonl" if re.match(rb'\{\s*"', start) else "text"


def _refuse_binary(source: Source, head: bytes) -> None:
    if suffix := compression_suffix(head):
        raise UserError(
            f"{source.path} is compressed, by its first bytes: give it a name ending in {suffix}, "
            "so that it is decompressed while it is read."
        )
    if head.startswith(_UTF16_MARKS):
        raise UserError(f"{source.path} is UTF-16, by its byte-order mark: convert it to UTF-8.")
    if head.startswith((*_OTHERS, *_MAGIC)) or _looks_binary(head):
        raise UserError(
            f"{source.path} is not text, by its first bytes: leave it out with input.pattern, or "
            "move it away."
        )


def _looks_binary(head: bytes) -> bool:
    controls = len(head) - len(head.translate(None, _BINARY_BYTES))
    return (controls > _BINARY_SHARE * len(head) and not _is_utf8(head)) or head.count(
        0
    ) > _NUL_SHARE * len(head)


def _is_utf8(head: bytes) -> bool:
    """Tell whether bytes are UTF-8, apart from an incomplete character at their end."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.end == len(head) and len(head) - error.start < 4
    return True
