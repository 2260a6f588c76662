"""JSON lines: one object a line, its text under one key."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from data_prep.byte_window import ByteWindow, decode, line_number, line_place, plain_newlines
from data_prep.errors import UserError
from data_prep.limits import skip_broken
from data_prep.options import InputOptions
from data_prep.sources import Slice

# A line has to be in memory as a whole, as bytes, as text, and again as the document. Text takes up
# to four bytes a character as soon as one of them is not ASCII, so such a line may be half as long.
MAX_LINE_BYTES = 64 << 20
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Without this in a line no half of a surrogate pair can be in its text.
_SURROGATE_ESCAPE = re.compile(r"\\u[dD]")


def read_json_lines(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of each JSON line that begins in the slice.

    Raises:
        UserError: for more broken lines than the options allow, and for a line too long to read
            unless long documents are dropped.
    """
    for offset, line in _lines(piece, options, counts):
        text = _text_of(line, partial(line_place, piece.source, offset), options, counts)
        if text is not None:
            yield offset, text


def _lines(piece: Slice, options: InputOptions, counts: Counter[str]) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of the lines that begin in a slice, without blank ones."""
    source = piece.source
    # One byte earlier, so that a line which begins exactly at the start is not passed.
    with ByteWindow(source, max(piece.start - 1, 0)) as window:
        if piece.start:
            window.pass_line()
        while True:
            end = window.line_end(MAX_LINE_BYTES)
            offset = window.offset
            if not piece.holds(offset) or end == window.cursor:
                return
            raw = None if end is None else window.data[window.cursor : end]
            if raw is None or (len(raw) > MAX_LINE_BYTES // 2 and not raw.isascii()):
                _drop_line(piece, offset, options, counts)
                window.pass_line()
                continue
            window.cursor += len(raw)
            if raw := raw.strip():
                yield offset, decode(raw, offset, source, options.errors)


def _drop_line(piece: Slice, offset: int, options: InputOptions, counts: Counter[str]) -> None:
    """Count a line that is too long to be read, or refuse it unless such may be dropped."""
    if options.long_documents != "drop":
        raise UserError(
            f"Line {line_number(piece.source, offset)} of {piece.source.path} has more than "
            f"{MAX_LINE_BYTES} bytes (half of it, if not all are ASCII), and JSON cannot be "
            "divided before it is read: "
            "leave such lines out with input.long_documents=drop, or give the text as a text file."
        )
    counts["too_long"] += 1


def _text_of(
    line: str, place: Callable[[], str], options: InputOptions, counts: Counter[str]
) -> str | None:
    """Return the text of one line, or None for a broken one that may be skipped."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        skip_broken(place, f"is not JSON ({error}): correct or remove it", options, counts)
        return None
    text = record.get(options.text_field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        problem = (
            f"has no text under the key {options.text_field!r}: set input.text_field to the key "
            "that holds it"
        )
        skip_broken(place, problem, options, counts)
        return None
    if _SURROGATE_ESCAPE.search(line) and _LONE_SURROGATE.search(text):
        # JSON can escape half a surrogate pair, which no tokenizer and no UTF-8 file accepts.
        if options.errors == "strict":
            problem = (
                "escapes half a surrogate pair, which is not Unicode: correct it, put U+FFFD in "
                "such places with --errors replace"
            )
            skip_broken(place, problem, options, counts)
        return None
        text = _LONE_SURROGATE.sub("\ufffd", text)
    return plain_newlines(text)
