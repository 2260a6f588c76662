"""JSON files that are not JSON lines: an array of records, or records over several lines.

A file is read record by record, so an array of any length takes bounded memory.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.byte_window import ByteWindow, decode_line, line_location
from data_prep.readers.limits import skip_broken
from data_prep.readers.sources import Slice
from data_prep.readers.structured.json_values import (
    after_white_space,
    decoder_for,
    parse,
    problem_of,
)
from data_prep.readers.structured.jsonl import MAX_LINE_BYTES
from data_prep.readers.structured.records import kept_text

# A record is in memory as text, of up to four bytes a character, and again as values.
_MAX_RECORD_CHARS = MAX_LINE_BYTES // 2
# An error this near the end of what has been read may be that of an incomplete value: the longest
# token is a pair of escaped surrogates.
_LONGEST_TOKEN = 16


def read_json_records(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of each record of a file, which is one slice.

    Raises:
        UserError: for text that is not JSON, because nothing after it can be read; for more records
            without text than the options allow, and for a record too long to read.
    """
    with ByteWindow(piece.source, errors=options.errors) as window:
        values = _Values(window, piece, options)
        for offset, record, text in values:
            location = partial(_location, piece, offset)
            try:
                # A key that occurs twice would hide a text.
                decoder_for(options.text_field, text)(text, 0)
            except ValueError as error:
                skip_broken(location, problem_of(error, text, 0), options, counts)
                continue
            if (kept := kept_text(record, location, options, counts)) is not None:
                yield offset, kept


def _location(piece: Slice, offset: int) -> str:
    return f"the record at {line_location(piece.source, offset)}"


class _Values:
    """Iterates over the values of a file: the elements of its arrays, and values outside of arrays.

    `_text` is what has been read and not yet parsed, from the index `_begin` on, which is at the
    byte `_offset` of the file.
    """

    def __init__(self, window: ByteWindow, piece: Slice, options: InputOptions) -> None:
        self._source = piece.source
        self._blocks = (
            decode_line(raw, at, piece.source, options.errors) for at, raw in window.rest()
        )
        self._text = ""
        self._begin = 0
        self._offset = 0

    def __iter__(self) -> Iterator[tuple[int, Any, str]]:
        """Yield the offset of each value, the value, and its text."""
        while char := self._next_char():
            if char == "[":
                yield from self._elements()
            else:
                yield self._value()

    def _elements(self) -> Iterator[tuple[int, Any, str]]:
        self._move(self._begin + 1)
        if self._next_char() == "]":
            self._move(self._begin + 1)
            return
        while True:
            yield self._value()
            char = self._next_char()
            if char not in ("]", ","):
                self._refuse("a comma is missing" if char else "the array has no end")
            self._move(self._begin + 1)
            if char == "]":
                return

    def _value(self) -> tuple[int, Any, str]:
        self._next_char()
        while True:
            try:
                value, end = parse(self._text, self._begin)
            except RecursionError:
                self._refuse("it is nested too deeply")
            except json.JSONDecodeError as error:
                near_end = error.pos >= len(self._text) - _LONGEST_TOKEN
                if not (near_end or "Unterminated" in error.msg) or not self._read_more():
                    self._refuse(error.msg)
                continue
            # A number that ends with the text may go on in the next block.
            if end < len(self._text) or not self._read_more():
                break
        offset, text = self._offset, self._text[self._begin : end]
        self._move(end)
        return offset, value, text

    def _next_char(self) -> str:
        """Move to the next character that is not white space, and return it; "" at the end."""
        while True:
            self._move(after_white_space(self._text, self._begin))
            if self._begin < len(self._text):
                return self._text[self._begin]
            if not self._read_more():
                return ""

    def _move(self, end: int) -> None:
        passed = end - self._begin
        if not self._text.isascii():
            passed = len(self._text[self._begin : end].encode("utf-8", "surrogatepass"))
        self._offset += passed
        self._begin = end

    def _read_more(self) -> bool:
        """Read as much again as is held, so that a long record is parsed a few times only."""
        held = [self._text[self._begin :]]
        missing = len(held[0])
        if missing > _MAX_RECORD_CHARS // (1 if self._text.isascii() else 4):
            raise UserError(
                f"The record at {line_location(self._source, self._offset)} has more than "
                f"{_MAX_RECORD_CHARS:,} characters (a quarter of it, if not all are ASCII), and "
                "JSON cannot be divided before it is read: give such texts as text files."
            )
        for block in self._blocks:
            held.append(block)
            missing -= len(block)
            # A block is empty where it ends inside its first character.
            if missing < 0:
                break
        self._text, self._begin = "".join(held), 0
        return len(held) > 1

    def _refuse(self, problem: str) -> NoReturn:
        raise UserError(
            f"The record at {line_location(self._source, self._offset)} is not JSON ({problem}), "
            "and what follows it cannot be read: correct the file, or convert it to JSON lines."
        )
