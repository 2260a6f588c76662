"""JSON lines: one object a line, its text under one key."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.byte_window import (
    ByteWindow,
    decode,
    line_location,
    line_number,
    plain_newlines,
)
from data_prep.readers.limits import skip_broken
from data_prep.readers.sources import Slice

# A line is in memory as a whole: as bytes, as text, and again as the document. Text that is not
# ASCII takes up to four bytes a character, so such a line may be half as long.
MAX_LINE_BYTES = 64 << 20
# The checks of `json.loads` around the parser take longer than a short line.
_parse = json.JSONDecoder().raw_decode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Only a line with one of these can escape half a surrogate pair.
_SURROGATE_ESCAPES = ("\\ud", "\\uD")


def read_json_lines(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of each JSON line that begins in the slice.

    Raises:
        UserError: for more broken lines than the options allow, and for a line too long to read
            unless long documents are dropped.
    """
    source, errors = piece.source, options.errors
    # One byte earlier, so that a line which begins exactly at the start is not skipped.
    with ByteWindow(source, max(piece.start - 1, 0)) as window:
        if piece.start:
            window.skip_line()
        for offset, raw in window.lines(MAX_LINE_BYTES):
            if not piece.holds(offset):
                return
            if raw is None or (len(raw) > MAX_LINE_BYTES // 2 and not raw.isascii()):
                _drop_line(piece, offset, options, counts)
            elif line := decode(raw, offset, source, errors).strip():
                try:
                    text = _text_of(line, options)
                except ValueError as problem:
                    location = partial(line_location, source, offset)
                    skip_broken(location, str(problem), options, counts)
                else:
                    yield offset, text


def _drop_line(piece: Slice, offset: int, options: InputOptions, counts: Counter[str]) -> None:
    """Count a line that is too long to read, or raise unless long documents may be dropped."""
    if options.long_documents != "drop":
        raise UserError(
            f"Line {line_number(piece.source, offset)} of {piece.source.path} has more than "
            f"{MAX_LINE_BYTES} bytes (half of it, if not all are ASCII), and JSON cannot be "
            "divided before it is read: leave such lines out with input.long_documents=drop, or "
            "give the text as a text file."
        )
    counts["too_long"] += 1


def _text_of(line: str, options: InputOptions) -> str:
    """Return the text of one line.

    Raises:
        ValueError: for a broken one, with what is wrong and what to do.
    """
    try:
        record, end = _parse(line, 0)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error}): correct or remove it") from error
    if end < len(line):
        raise ValueError(f"is not JSON (an object ends at character {end}): correct or remove it")
    text = record.get(options.text_field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            f"has no text under the key {options.text_field!r}: set input.text_field to the key "
            "that holds it"
        )
    if any(escape in line for escape in _SURROGATE_ESCAPES):
        text = _whole_characters(text, options)
    return plain_newlines(text)


def _whole_characters(text: str, options: InputOptions) -> str:
    """Replace the halves of surrogate pairs, which no tokenizer and no UTF-8 file accepts."""
    if options.errors == "strict" and _LONE_SURROGATE.search(text):
        raise ValueError(
            "escapes half a surrogate pair, which is not Unicode: correct it, or replace it by "
            "U+FFFD with --errors replace"
        )
    return _LONE_SURROGATE.sub("\ufffd", text)
