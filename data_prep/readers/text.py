"""Plain text: documents are files, or blocks between blank lines."""

import re
from collections import Counter
from collections.abc import Iterator

from data_prep.config.schema import InputOptions
from data_prep.readers.byte_window import BLOCK_BYTES, ByteWindow, Delimiter, decode
from data_prep.readers.sources import Slice

# White space of Unicode as UTF-8, because a line of ideographic spaces is blank too.
# So is a line with nothing but a byte-order mark.
_WIDE = (
    rb"\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2(?:\x80[\x80-\x8a\xa8\xa9\xaf]|\x81\x9f)|\xe3\x80\x80"
    rb"|\xef\xbb\xbf"
)
# Possessive, because the matcher would keep a state for each character of a long run.
_BLANK = rb"(?:[\t\x0b-\r\x1c-\x20]++|" + _WIDE + rb")*+"
_BLANK_LINES = Delimiter(
    re.compile(rb"\n(?:" + _BLANK + rb"\n)++"),
    re.compile(rb"\n" + _BLANK + rb"(?:[\xc2\xe1-\xe3\xef][\x80-\xbb]?)?\Z"),
)
_LINE_END = Delimiter(re.compile(rb"\n"), re.compile(rb"\n\Z"))

Text = str | Iterator[str]


def read_text(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, Text]]:
    """Yield the offset and the text of each document of a slice; long ones in pieces."""
    if options.documents == "blank_line":
        yield from _read_blocks(piece, options)
    elif options.documents == "line":
        yield from _read_lines(piece, options)
    elif piece.start == 0:
        with ByteWindow(piece.source, errors=options.errors) as window:
            spans = window.rest()
            yield 0, (decode(raw, offset, piece.source, options.errors) for offset, raw in spans)


def _read_blocks(piece: Slice, options: InputOptions) -> Iterator[tuple[int, Text]]:
    """Yield the blocks of a slice; some may be blank.

    A block belongs to the slice with the start of the blank line before it; the start of the file
    counts as a blank line. So each block belongs to exactly one slice, wherever the cuts are.
    """
    source, errors = piece.source, options.errors
    in_slice = piece.start == 0
    # One byte earlier, so that a blank line which begins exactly at the start is found.
    with ByteWindow(source, max(piece.start - 1, 0), errors) as window:
        while True:
            data, base = window.data, window.base
            # The cursor is on the newline before a block, but not where a file begins.
            begin = window.cursor + data.startswith(b"\n", window.cursor)
            for match in _BLANK_LINES.pattern.finditer(data, window.cursor):
                end = match.start()
                if in_slice and end > begin:
                    raw = data[begin:end].rstrip(b"\r")
                    yield base + begin, decode(raw, base + begin, source, errors)
                begin = match.end()
                in_slice = piece.holds(base + data.rfind(b"\n", end, begin - 1) + 1)
                if not in_slice:
                    return
                window.cursor = begin - 1
            if window.find(_BLANK_LINES.pattern):
                continue
            spans = window.until(_BLANK_LINES)
            if in_slice:
                after_newline = window.data.startswith(b"\n", window.cursor)
                yield window.offset + after_newline, _pieces(spans, piece, options)
            for at, _ in spans:
                if not in_slice and not piece.holds(at):
                    return
            if window.ended and window.cursor == len(window.data):
                return


def _read_lines(piece: Slice, options: InputOptions) -> Iterator[tuple[int, Text]]:
    """Yield the lines that begin in a slice, a very long one in pieces; some may be blank."""
    source, errors = piece.source, options.errors
    with ByteWindow(source, max(piece.start - 1, 0), errors) as window:
        if piece.start:
            window.skip_line()
        while True:
            end = window.data.rfind(b"\n", window.cursor)
            if end >= 0:
                offset, block = window.offset, window.data[window.cursor : end]
                window.cursor = end + 1
                for line in block.split(b"\n"):
                    if not piece.holds(offset):
                        return
                    yield offset, decode(line, offset, source, errors)
                    offset += len(line) + 1
            if len(window.data) - window.cursor > BLOCK_BYTES:
                if not piece.holds(window.offset):
                    return
                spans = window.until(_LINE_END)
                yield window.offset, (decode(raw, at, source, errors) for at, raw in spans)
                for _ in spans:
                    pass
                window.cursor += window.cursor < len(window.data)
            elif not window.grow():
                break
        if window.data and piece.holds(window.base):
            yield window.base, decode(window.data, window.base, source, errors)


def _pieces(
    spans: Iterator[tuple[int, bytes]], piece: Slice, options: InputOptions
) -> Iterator[str]:
    """Decode the pieces of a long block, without the newline before it."""
    first = True
    for offset, raw in spans:
        begin = first and raw.startswith(b"\n")
        raw = raw[begin:]
        yield decode(raw, offset + begin, piece.source, options.errors)
        first = False
