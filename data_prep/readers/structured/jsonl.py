"""JSON lines: one object a line, its text under one key."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.byte_window import (
    ByteWindow,
    decode_line,
    line_location,
    line_number,
    plain_newlines,
)
from data_prep.readers.limits import skip_broken
from data_prep.readers.sources import Slice
from data_prep.readers.structured.json_values import (
    WHITE_SPACE,
    after_white_space,
    decoder_for,
    parse,
    problem_of,
)
from data_prep.readers.structured.records import kept_text

# A line is in memory as a whole: as bytes, as text, and again as the document. Text that is not
# ASCII takes up to four bytes a character, so such a line may be half as long.
MAX_LINE_BYTES = 64 << 20
# Only a line with one of these can escape half a surrogate pair.
_SURROGATE_ESCAPES = ("\\ud", "\\uD")


def read_json_lines(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of each JSON object of the lines that begin in the slice.

    A line may hold several objects, as where files without a newline at their end were joined.

    Raises:
        UserError: for more broken records than the options allow, and for a line too long to read
            unless long documents are dropped.
    """
    field = options.text_field
    key = f'"{field}"'
    for offset, line in json_lines(piece, options, counts):
        # A key that occurs twice would hide a text.
        text = _plain_text(line, field) if line.count(key) == 1 else None
        if text is not None:
            yield offset, text
            continue
        location = partial(line_location, piece.source, offset)
        for record in records_of_line(line, location, options, counts):
            if (text := kept_text(record, location, options, counts)) is not None:
                yield offset, text


def json_lines(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of each line that begins in the slice.

    Raises:
        UserError: for a line too long to read, unless long documents are dropped.
    """
    source, errors = piece.source, options.errors
    # One byte earlier, so that a line which begins exactly at the start is not skipped.
    with ByteWindow(source, max(piece.start - 1, 0), errors) as window:
        if piece.start:
            window.skip_line()
        for offset, raw in window.lines(MAX_LINE_BYTES):
            if not piece.holds(offset):
                return
            if raw is None or (len(raw) > MAX_LINE_BYTES // 2 and not raw.isascii()):
                _drop_line(piece, offset, options, counts)
            elif raw:
                yield offset, decode_line(raw, offset, source, errors)


def records_of_line(
    line: str, location: Callable[[], str], options: InputOptions, counts: Counter[str]
) -> Iterator[Any]:
    """Yield the JSON values of a line; the first that is broken is counted and ends it.

    Raises:
        UserError: for more broken records than the options allow.
    """
    line = line.strip(WHITE_SPACE)
    decode = decoder_for(options.text_field, line)
    begin = 0
    while begin < len(line):
        try:
            record, end = decode(line, begin)
        except (ValueError, RecursionError) as error:
            skip_broken(location, problem_of(error, line, begin), options, counts)
            return
        yield record
        begin = after_white_space(line, end)
        if begin < len(line) and line[begin] != "{":
            problem = f"is not JSON (an object ends at character {end}"
            problem += " and a comma follows" if line[begin] == "," else ""
            skip_broken(location, f"{problem}): correct or remove it", options, counts)
            return


def _plain_text(line: str, field: str) -> str | None:
    """Return the text of a line that is one object with a string as its text, else None."""
    try:
        record, end = parse(line, 0)
    except (ValueError, RecursionError):
        return None
    text = record.get(field) if type(record) is dict else None
    if type(text) is not str or (end < len(line) and not line[end:].isspace()):
        return None
    if not text.isascii() and any(escape in line for escape in _SURROGATE_ESCAPES):
        return None
    return plain_newlines(text)


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
