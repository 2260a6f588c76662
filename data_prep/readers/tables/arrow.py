"""Arrow files, streams and random-access ones, as `datasets` writes them.

A local file is mapped into memory and its record batches are views of the map, so other columns and
other slices are never read from disk.
"""

import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.sources import Slice
from data_prep.readers.storage.remote import RemotePath
from data_prep.readers.tables.columns import Text, check_field, read_column

# A random-access file is this marker, a stream, an index of its batches, and the marker again
# (Arrow Columnar Format, "IPC File Format"). Read as a stream, the offset of each batch is known.
_FILE_MARK = b"ARROW1"
_FILE_HEAD_BYTES = 8


def read_arrow(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, Text]]:
    """Yield the row number and the text of the rows in the record batches of a slice.

    A record batch belongs to the slice in which its message begins.

    Raises:
        UserError: for a damaged file, and a missing field.
    """
    path = piece.source.path
    try:
        yield from _read_batches(piece, options, counts)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None):
            raise
        problem = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"{path} is not a complete Arrow file ({problem}): copy it again or remove it."
        ) from error


def _read_batches(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, Text]]:
    name = str(piece.source.path)
    stream, head_bytes = _open(piece)
    stream.seek(head_bytes)
    schema = pa.ipc.open_stream(stream).schema
    field = check_field(schema, name, options)
    only_text = pa.ipc.IpcReadOptions(included_fields=[schema.names.index(field[0])])
    stream.seek(head_bytes)
    batches = pa.ipc.open_stream(stream, options=only_text)
    row = 0
    while piece.holds(begin := stream.tell()):
        try:
            batch = batches.read_next_batch()
        except StopIteration:
            return
        if begin >= piece.start:
            yield from read_column(batch.column(0), field, row, name, options, counts)
        row += batch.num_rows


def _open(piece: Slice) -> tuple[Any, int]:
    """Return the file, mapped into memory if it is local, and the number of bytes before it."""
    path = piece.source.path
    if isinstance(path, RemotePath):
        stream = pa.PythonFile(path.open_stream(), mode="r")
    else:
        stream = pa.BufferReader(_map(path, piece))
    is_file = stream.read(len(_FILE_MARK)) == _FILE_MARK
    if is_file:
        stream.seek(piece.source.size - len(_FILE_MARK))
        if stream.read(len(_FILE_MARK)) != _FILE_MARK:
            raise pa.ArrowInvalid("its end is missing")
    return stream, _FILE_HEAD_BYTES if is_file else 0


def _map(path: Path, piece: Slice) -> pa.Buffer:
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Without this the system reads megabytes ahead at every message that is skipped.
    view.madvise(mmap.MADV_RANDOM)
    begin = piece.start // mmap.PAGESIZE * mmap.PAGESIZE
    view.madvise(mmap.MADV_SEQUENTIAL, begin, min(piece.stop, len(view)) - begin)
    return pa.py_buffer(view)
