"""Tables of examples: CSV, TSV, JSON lines and Parquet, by the names or numbers of columns.

Cells are read as they stand: "NA", "null" and "01" are texts, no missing values and no numbers.
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.errors import UserError

_DELIMITED = {".csv": ",;\t", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_JSON = (".jsonl", ".json", ".ndjson")
_PARQUET = (".parquet", ".pq")
TABLES = (*_DELIMITED, *_JSON, *_PARQUET)
_SHOWN_CHARACTERS = 40

Row = tuple[str, list[Any]]  # where it is, and its cells in the order of the columns asked for


class Columns(NamedTuple):
    """The columns to read, by switch: `{"--text": "sentence", "--label": "label"}`."""

    named: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Their names or numbers, in order."""
        return list(self.named.values())

    @property
    def are_numbers(self) -> bool:
        """Whether all of them could be numbers of columns."""
        return all(name.isdecimal() for name in self.names)


class Table(NamedTuple):
    """Rows of a file, and what is to be said about how it was read."""

    rows: list[Row]
    notes: list[str]


def read_table(path: Path, columns: Columns) -> Table:
    """Read some columns of a file; its suffix tells its format.

    Args:
        path: of the file.
        columns: names of the header, or numbers where a CSV or TSV file has none. Numbers count
            from 1, as those of `cut`, or from 0 where one of them is 0.

    Raises:
        UserError: for a file that is missing, empty, of another format or broken, or lacks a
            column; the columns that it has are listed.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}: correct the path.")
    suffix = path.suffix.lower()
    try:
        if suffix in _DELIMITED:
            table = _read_delimited(path, columns, _DELIMITED[suffix])
        elif suffix in _JSON:
            table = Table(list(_read_json(path, columns)), [])
        elif suffix in _PARQUET:
            table = Table(_read_parquet(path, columns), [])
        else:
            raise UserError(f"{path} is no table: give a file of {', '.join(TABLES)}.")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it first.") from None
    if not table.rows:
        raise UserError(f"{path} has no examples: give another file.")
    return table


def _read_delimited(path: Path, columns: Columns, delimiters: str) -> Table:
    """Read a CSV or TSV file, with the first delimiter by which its header has all columns."""
    header: list[str] = []
    for delimiter in delimiters:
        found = next(_records(path, delimiter), ("", [""]))[1]
        if set(columns.names) <= set(found):
            _refuse_twins(path, found, columns)
            indices = [found.index(name) for name in columns.names]
            rows = list(_select(path, delimiter, indices, len(found), skip=1))
            return Table(rows, [])
        header = header or found
    if columns.are_numbers:
        return _read_by_numbers(path, columns, delimiters)
    raise UserError(_lacks(path, columns, header))


def _read_by_numbers(path: Path, columns: Columns, delimiters: str) -> Table:
    widths = {mark: len(next(_records(path, mark), ("", [""]))[1]) for mark in delimiters}
    delimiter = max(delimiters, key=lambda mark: widths[mark])
    base = 0 if "0" in columns.names else 1
    indices = [int(name) - base for name in columns.names]
    if max(indices) >= widths[delimiter]:
        raise UserError(
            f"{path} has {widths[delimiter]} columns, but column {max(indices) + base} was named "
            f"(counted from {base}): correct {' or '.join(columns.named)}."
        )
    rows = list(_select(path, delimiter, indices, widths[delimiter], skip=0))
    cells = rows[0][1] if rows else []
    shown = ", ".join(
        f"{switch} is {cell[:_SHOWN_CHARACTERS]!r}"
        for switch, cell in zip(columns.named, cells, strict=False)
    )
    return Table(rows, [f"{path} has no header; its first row, columns from {base}: {shown}"])


def _records(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the line and the cells of each record that is not blank."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        # In tab-separated files quotes are characters of the text, as in GLUE.
        if delimiter == "\t":
            reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if cells:
                    yield f"Line {reader.line_num} of {path}", cells
        except csv.Error as error:
            raise UserError(
                f"Line {reader.line_num} of {path} is no record of a table ({error}): correct it."
            ) from None


def _select(
    path: Path, delimiter: str, indices: Sequence[int], width: int, skip: int
) -> Iterator[Row]:
    for number, (where, cells) in enumerate(_records(path, delimiter)):
        if number < skip:
            continue
        if len(cells) != width:
            raise UserError(
                f"{where} has {len(cells)} cells, but the first line has {width}: correct it, or "
                "quote its text."
            )
        yield where, [cells[index] for index in indices]


def _refuse_twins(path: Path, header: Sequence[str], columns: Columns) -> None:
    for name in columns.names:
        if header.count(name) > 1:
            raise UserError(
                f"{path} has {header.count(name)} columns {name!r}: rename all but one."
            )


def _read_json(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of JSON lines, or of one list of objects."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        try:
            items = list(enumerate(json.loads(text), 1))
        except ValueError as error:
            raise UserError(f"{path} is no JSON ({error}): correct it.") from None
        place = "Item"
    else:
        items = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        place = "Line"
    for number, item in items:
        where = f"{place} {number} of {path}"
        yield where, _cells_of(where, item, columns)


def _cells_of(where: str, item: Any, columns: Columns) -> list[Any]:
    if isinstance(item, str):
        try:
            item = json.loads(item)
        except ValueError as error:
            raise UserError(f"{where} is no JSON ({error}): correct it.") from None
    if not isinstance(item, dict):
        raise UserError(f"{where} is no object with columns: correct it.")
    if set(columns.names) - item.keys():
        raise UserError(_lacks(where, columns, list(item)))
    return [item[name] for name in columns.names]


def _read_parquet(path: Path, columns: Columns) -> list[Row]:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        present = parquet.read_schema(path).names
        if set(columns.names) - set(present):
            raise UserError(_lacks(path, columns, present))
        # Each once: the same column can be asked for twice.
        table = parquet.read_table(path, columns=list(dict.fromkeys(columns.names)))
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}): correct it.") from None
    cells = [table.column(name).to_pylist() for name in columns.names]
    return [
        (f"Row {number} of {path}", list(row))
        for number, row in enumerate(zip(*cells, strict=True), 1)
    ]


def _lacks(where: Path | str, columns: Columns, present: Sequence[str]) -> str:
    switch, name = next((s, n) for s, n in columns.named.items() if n not in present)
    listed = ", ".join(repr(name[:_SHOWN_CHARACTERS]) for name in present)
    return f"{where} has no column {name!r} but {listed}: correct {switch}."
