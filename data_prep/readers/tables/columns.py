"""Documents from the text column of Arrow data, without copying whole buffers.

Used for Parquet files, Arrow files and datasets.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.byte_window import plain_newlines, safe_cut
from data_prep.readers.limits import skip_broken

Text = str | Iterator[str]

# A text longer than this is yielded in pieces of about this many bytes.
_PIECE_BYTES = 4 << 20


def check_field(schema: pa.Schema, name: str, options: InputOptions) -> None:
    """Check that the text field exists and holds text.

    Raises:
        UserError: if not, with the existing fields.
    """
    field = options.text_field
    if field not in schema.names:
        raise UserError(
            f"{name} has no field {field!r} but {', '.join(map(repr, schema.names)) or 'none'}: "
            "set input.text_field to the one that holds the text."
        )
    kind = schema.field(field).type
    if not _holds_text(kind):
        raise UserError(
            f"The field {field!r} of {name} holds {kind}, not text: set input.text_field to one of "
            f"{', '.join(repr(other.name) for other in schema if _holds_text(other.type))}."
        )


def read_column(
    column: pa.Array, first_row: int, name: str, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, Text]]:
    """Yield the row number and the text of each row; a very long text in pieces.

    Args:
        column: the text field of one batch.
        first_row: the number of its first row in the file, from 0.
        name: of the file or dataset, for error messages.
        options: how to read.
        counts: `broken` is incremented for each row without text.

    Raises:
        UserError: for bytes that are not UTF-8, and for too many rows without text.
    """
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    offsets, data = _bytes_of(column)
    for index, (begin, end) in enumerate(itertools.pairwise(offsets)):
        row = first_row + index
        if valid is not None and not valid[index]:
            location = partial(_location, row, name)
            problem = f"has no text in the field {options.text_field!r}: correct or remove it"
            skip_broken(location, problem, options, counts)
        elif end - begin > _PIECE_BYTES:
            yield row, _pieces(data[begin:end], row, name, options)
        else:
            yield row, _decode(data[begin:end], row, name, options)


def _holds_text(kind: pa.DataType) -> bool:
    """Tell whether a type may be text; bytes may, because old writers do not mark strings."""
    types = pa.types
    if types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary)
    return any(test(kind) for test in (*tests, types.is_large_binary, types.is_null))


def _bytes_of(column: pa.Array) -> tuple[list[int], memoryview]:
    """Return the offsets at which rows begin and end, and the bytes that they index."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    column = column.cast(pa.large_binary())
    if not len(column):
        return [0], memoryview(b"")
    _, offsets, data = column.buffers()
    own = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return own.tolist(), memoryview(data if data is not None else b"")


def _decode(raw: memoryview, row: int, name: str, options: InputOptions) -> str:
    try:
        return plain_newlines(str(raw, "utf-8", options.errors))
    except UnicodeDecodeError as error:
        raise UserError(
            f"Row {row:,} of {name} is not UTF-8 ({error.reason}): correct it, or "
            "replace such bytes by U+FFFD with --errors replace."
        ) from error


def _pieces(raw: memoryview, row: int, name: str, options: InputOptions) -> Iterator[str]:
    begin = 0
    while begin < len(raw):
        end = min(begin + _PIECE_BYTES, len(raw))
        if end < len(raw):
            end = begin + safe_cut(bytes(raw[begin:end]), 0)
        yield _decode(raw[begin:end], row, name, options)
        begin = end


def _location(row: int, name: str) -> str:
    return f"row {row:,} of {name}"
