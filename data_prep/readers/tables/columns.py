"""Documents from the text column of Arrow data, without copying whole buffers.

Used for Parquet files, Arrow files and datasets.
"""

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.byte_window import plain_newlines, safe_cut
from data_prep.readers.structured.records import names_of

Text = str | Iterator[str]

# A text longer than this is yielded in pieces of about this many bytes.
_PIECE_BYTES = 4 << 20


def check_field(schema: pa.Schema, name: str, options: InputOptions) -> tuple[str, ...]:
    """Return the path of the text field: the name of a column, and of fields inside of it.

    Raises:
        UserError: for a field that does not exist or holds no text, with the existing fields.
    """
    field = options.text_field
    path = (field,) if field in schema.names else tuple(field.split("."))
    kind = _type_at(schema, path)
    if kind is None:
        names = names_of([name for name, _ in _fields(schema, nested="." in field)])
        raise UserError(
            f"{name} has no field {field!r} but {names}: set input.text_field to the one that "
            "holds the text."
        )
    if not _holds_text(kind) and not _holds_texts(kind):
        fields = [name for name, kind in _fields(schema, nested=True) if _holds_text(kind)]
        raise UserError(
            f"The field {field!r} of {name} holds {kind}, not text: set input.text_field to one of "
            f"{names_of(fields)}."
        )
    return path


def read_column(
    column: pa.Array,
    path: tuple[str, ...],
    first_row: int,
    name: str,
    options: InputOptions,
    counts: Counter[str],
) -> Iterator[tuple[int, Text]]:
    """Yield the row number and the text of each row; a very long text in pieces.

    Args:
        column: the column of one batch that holds the text.
        path: of the text field, from the name of the column on.
        first_row: the number of its first row in the file, from 0.
        name: of the file or dataset, for error messages.
        options: how to read.
        counts: `null_text` is incremented for each row whose text is null.

    Raises:
        UserError: for bytes that are not UTF-8.
    """
    for part in path[1:]:
        # Unlike the child array, this is null where the struct is.
        column = pc.struct_field(column, part)
    if _holds_texts(column.type):
        column = _joined(column)
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    offsets, data = _bytes_of(column)
    for index, (begin, end) in enumerate(itertools.pairwise(offsets)):
        row = first_row + index
        if valid is not None and not valid[index]:
            counts["null_text"] += 1
        elif end - begin > _PIECE_BYTES:
            yield row, _pieces(data[begin:end], row, name, options)
        else:
            yield row, _decode(data[begin:end], row, name, options)


def _type_at(schema: pa.Schema, path: tuple[str, ...]) -> pa.DataType | None:
    if path[0] not in schema.names:
        return None
    kind = schema.field(path[0]).type
    for part in path[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = kind.field(part).type
    return kind


def _fields(schema: pa.Schema, *, nested: bool) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the columns with their types, or the fields of a column that has fields."""
    for field in schema:
        if nested and pa.types.is_struct(field.type):
            yield from ((f"{field.name}.{inner.name}", inner.type) for inner in field.type)
        else:
            yield field.name, field.type


def _holds_texts(kind: pa.DataType) -> bool:
    """Tell whether a type is a list of texts, the paragraphs of a document."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests) and _holds_text(kind.value_type)


def _joined(column: pa.Array) -> pa.Array:
    """Return the texts whose paragraphs are in lists; a paragraph that is null is left out."""
    lists = column.cast(pa.large_list(pa.large_binary())).to_pylist()
    texts = (
        None if parts is None else b"\n".join(part for part in parts if part is not None)
        for parts in lists
    )
    return pa.array(texts, pa.large_binary())


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
