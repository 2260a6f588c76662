"""CSV and TSV files: a header that names the columns, and one record a row."""

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial
from itertools import chain

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.byte_window import ByteWindow, decode
from data_prep.readers.limits import skip_broken
from data_prep.readers.sources import Slice, Source
from data_prep.readers.storage.compression import uncompressed_name
from data_prep.readers.structured.records import names_of

# A field is in memory as four bytes a character while it is read.
_MAX_FIELD_CHARS = 16 << 20
_MAX_LINE_BYTES = 32 << 20
_DELIMITERS = ",\t;|"
_TAB_SUFFIXES = (".tsv", ".tab")
CSV_SUFFIXES = (".csv", *_TAB_SUFFIXES)
_DELIMITER_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
# Rows that end inside a quoted field are searched for their end over this many lines.
_MAX_ROW_LINES = 10_000
_MIN_LINES = 8  # that look delimited before a file without a header is refused as such
_MIN_COLUMNS = {"\t": 2, ",": 3, ";": 3, "|": 3}

_STATED_DELIMITER = re.compile(r'"?sep=([,;|\t])"?')
Row = list[str]


def read_delimited(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of each row of a file, which is one slice.

    Raises:
        UserError: for a file whose header lacks the text field, for a quotation mark without its
            pair, and for more bad rows than the options allow.
    """
    source = piece.source
    csv.field_size_limit(_MAX_FIELD_CHARS)
    with ByteWindow(source, errors=options.errors) as window:
        lines = _Lines(window, source, options)
        first = next((line for line in lines if line.strip()), "")
        delimiter = delimiter_of(first, source.name, options.text_field)
        # Excel is told the delimiter by a line above the header.
        if stated := _STATED_DELIMITER.fullmatch(first.strip("\r\n")):
            first, delimiter = next(lines, ""), stated[1]
        tab = delimiter == "\t"
        rows = iter(
            _TabRows(lines, first) if tab else _quoted_rows(lines, first, delimiter, source)
        )
        _, header = next(rows, (1, []))
        column, columns = _column_of(header, source, options)
        for number, row in rows:
            if isinstance(row, list) and len(row) == columns:
                yield number, row[column]
            elif row and row != [""]:
                location = partial(_location, number, source)
                skip_broken(location, _problem_of(row, columns, delimiter), options, counts)


def delimiter_of(header: str, name: str, field: str) -> str:
    """Return the delimiter of a file: by its suffix, or the one that separates its header best."""
    if uncompressed_name(name).lower().endswith(_TAB_SUFFIXES):
        return "\t"
    found = {delimiter: _split(header, delimiter) for delimiter in _DELIMITERS}
    naming = [delimiter for delimiter, names in found.items() if field in names]
    return max(naming or found, key=lambda delimiter: len(found[delimiter]))


def looks_delimited(head: str, field: str) -> str | None:
    """Return the name of the delimiter if the beginning of a text is rows of fields, else None.

    Args:
        head: the first lines of a file, the last of which may be incomplete.
        field: the text field; a header that names it is proof enough.
    """
    lines = head.split("\n")[:-1]
    for delimiter, least in _MIN_COLUMNS.items() if len(lines) > 1 else ():
        columns = lines[0].count(delimiter) + 1
        if columns > 1 and field in _split(lines[0], delimiter):
            return _DELIMITER_NAMES[delimiter]
        if columns < least or len(lines) < _MIN_LINES:
            continue
        if all(line.count(delimiter) + 1 == columns for line in lines):
            return _DELIMITER_NAMES[delimiter]
    return None


class _Lines:
    """Iterates over the lines of a file, newline included; `number` is that of the last one."""

    def __init__(self, window: ByteWindow, source: Source, options: InputOptions) -> None:
        self.number = 0
        self._lines = chain.from_iterable(_blocks(window, source, options))

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        return line


def _blocks(window: ByteWindow, source: Source, options: InputOptions) -> Iterator[io.StringIO]:
    """Yield blocks of whole lines; iterating over a block yields its lines."""
    more = True
    while more:
        more = window.grow()
        end = window.data.rfind(b"\n") + 1 if more else len(window.data)
        if end:
            yield io.StringIO(decode(window.data[:end], window.base, source, options.errors))
            window.cursor = end
        elif len(window.data) > _MAX_LINE_BYTES:
            raise UserError(
                f"{source.path} has a line of more than {_MAX_LINE_BYTES:,} bytes at byte offset "
                f"{window.base}: divide it, or set input.kind if this is not a CSV file."
            )


def _quoted_rows(
    lines: _Lines, first: str, delimiter: str, source: Source
) -> Iterator[tuple[int, Row | csv.Error]]:
    """Yield the number of the first line of each row, and its fields or what is wrong with it.

    Raises:
        UserError: for a quoted field without an end, because it may hide any number of rows.
    """
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    while True:
        number = lines.number + (reader.line_num > 0)
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error) or "field limit" in str(error):
                raise UserError(
                    f"The row that begins at {_location(number, source)} has a quoted field that "
                    f"does not end within {_MAX_FIELD_CHARS:,} characters: double quotation marks "
                    "inside of quoted fields, or set input.kind if this is not a CSV file."
                ) from error
            yield number, error


class _TabRows:
    """Iterates over the rows of a TSV file, each with the number of its first line.

    Most TSV files do not quote fields, and a quotation mark in them is text; others do, as
    spreadsheets write them. So a line with all fields is a row, and a field is unquoted only if it
    is quoted as a whole. A quoted field over several lines is known by lines with too few tabs.
    """

    def __init__(self, lines: _Lines, first: str) -> None:
        self._tabs = first.count("\t")
        self._lines = chain([(lines.number, first)], ((lines.number, line) for line in lines))
        # Lines that were searched for the end of a quoted field and hold none.
        self._returned: deque[tuple[int, str]] = deque()

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        while following := self._next():
            number, line = following
            row = None
            if '"' in line and (line.count('"') % 2 or line.count("\t") != self._tabs):
                row = self._quoted_row(line)
            yield number, row or list(map(_unquoted, line.removesuffix("\n").split("\t")))

    def _next(self) -> tuple[int, str] | None:
        return self._returned.popleft() if self._returned else next(self._lines, None)

    def _quoted_row(self, line: str) -> Row | None:
        """Return the row that begins in a line, if it ends where its quotation marks are even."""
        held: list[tuple[int, str]] = []
        marks = line.count('"')
        while marks % 2 and len(held) < _MAX_ROW_LINES and (following := self._next()):
            held.append(following)
            marks += following[1].count('"')
            if following[1].count("\t") >= self._tabs:
                break
        else:
            text = (line, *(later for _, later in held))
            try:
                rows = list(csv.reader(text, delimiter="\t", strict=True))
            except csv.Error:
                rows = []
            if len(rows) == 1 and len(rows[0]) == self._tabs + 1:
                return rows[0]
        self._returned.extendleft(reversed(held))
        return None


def _unquoted(field: str) -> str:
    """Return a field without its quotation marks, if it is quoted as a whole."""
    inner = field[1:-1]
    if len(field) < 2 or field[0] + field[-1] != '""' or '"' in inner.replace('""', ""):
        return field
    return inner.replace('""', '"')


def _split(line: str, delimiter: str) -> Row:
    """Return the fields of a header, or what can be read of them."""
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return [line]


def _column_of(header: Row | csv.Error, source: Source, options: InputOptions) -> tuple[int, int]:
    """Return the index of the text column, and the number of columns.

    Raises:
        UserError: if the header has none of that name, or several.
    """
    names = [name.strip() for name in header] if isinstance(header, list) else []
    found = names.count(options.text_field)
    if found == 1:
        return names.index(options.text_field), len(names)
    if found:
        raise UserError(f"{source.path} has {found} fields {options.text_field!r}: rename one.")
    raise UserError(
        f"{source.path} has no field {options.text_field!r} but {names_of(names)}: set "
        "input.text_field to the one that holds the text. The first line must name the fields; a "
        "file with a text on each line is read with input.kind=text and input.documents=line."
    )


def _problem_of(row: Row | csv.Error, columns: int, delimiter: str) -> str:
    """Return what is wrong with a row, and what to do."""
    if isinstance(row, csv.Error):
        return f"is not CSV ({row}): double quotation marks inside of quoted fields"
    return (
        f"has {len(row)} fields and the header {columns}: put fields that contain a "
        f"{_DELIMITER_NAMES[delimiter]} in quotation marks"
    )


def _location(number: int, source: Source) -> str:
    return f"line {number:,} of {source.path}"
