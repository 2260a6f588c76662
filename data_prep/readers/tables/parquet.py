"""Parquet files: each row group belongs to one slice, and only the text column is read."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.sources import Slice
from data_prep.readers.storage.remote import RemotePath
from data_prep.readers.tables.columns import Text, check_field, read_column

# Rows are decoded in batches of about this many bytes of text.
_BATCH_BYTES = 2 << 20
_MAX_BATCH_ROWS = 4096
_READ_BYTES = 1 << 20


def read_parquet(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, Text]]:
    """Yield the row number and the text of the rows in the row groups of a slice.

    A row group belongs to the slice in which its first byte lies.

    Raises:
        UserError: for a damaged file, and a missing field.
    """
    path = piece.source.path
    opened = path.open_stream() if isinstance(path, RemotePath) else path
    try:
        # Page by page: by default a whole column of a row group is read into memory.
        with pq.ParquetFile(opened, buffer_size=_READ_BYTES, pre_buffer=False) as file:
            field = check_field(file.schema_arrow, str(path), options)
            yield from _read_groups(file, field, piece, options, counts)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None):
            raise
        problem = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"{path} is not a complete Parquet file ({problem}): copy it again or remove it."
        ) from error


def _read_groups(
    file: pq.ParquetFile,
    field: tuple[str, ...],
    piece: Slice,
    options: InputOptions,
    counts: Counter[str],
) -> Iterator[tuple[int, Text]]:
    row = 0
    name, column = str(piece.source.path), ".".join(field)
    for group in range(file.metadata.num_row_groups):
        facts = file.metadata.row_group(group)
        begin = _first_byte(facts)
        if begin >= piece.start and piece.holds(begin):
            at = row
            for batch in file.iter_batches(
                _batch_rows(facts, column), row_groups=[group], columns=[column], use_threads=False
            ):
                texts = batch.column(field[0])
                yield from read_column(texts, field, at, name, options, counts)
                at += batch.num_rows
        row += facts.num_rows


def _first_byte(group: Any) -> int:
    first = group.column(0)
    pages: tuple[int | None, ...] = (first.dictionary_page_offset, first.data_page_offset)
    return min(page for page in pages if page)


def _batch_rows(group: Any, field: str) -> int:
    """Return how many rows hold about `_BATCH_BYTES` of text, by the average of their group."""
    columns = (group.column(index) for index in range(group.num_columns))
    size: int = sum(
        column.total_uncompressed_size
        for column in columns
        if f"{column.path_in_schema}.".startswith(f"{field}.")
    )
    average = size // max(int(group.num_rows), 1)
    return max(1, min(_BATCH_BYTES // max(average, 1), _MAX_BATCH_ROWS))
