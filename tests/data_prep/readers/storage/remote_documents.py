"""Documents in every format that is read from afar, and what reading them gives."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.config.schema import InputOptions
from data_prep.readers import listing
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks, list_sources

DOCUMENTS = [
    f"Document {n} has some words, more or fewer: {'word ' * (n % 50)}end." for n in range(900)
]


LINES = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()


def read(slice_bytes: int = 10_000, **options: Any) -> list[str]:
    chosen = InputOptions.model_validate(options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "SLICE_BYTES", slice_bytes)
        tasks = cut_into_tasks(list_sources({"text": chosen}))
    counts: Counter[str] = Counter()
    return [
        d.text for task in tasks for piece in task for d in read_documents(piece, chosen, counts)
    ]


def parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": DOCUMENTS}), sink, row_group_size=100)
    return bytes(sink.getvalue())


def arrow_bytes(new: Any) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"text": DOCUMENTS})
    with new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return bytes(sink.getvalue())


FORMATS: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: LINES,
    "a.jsonl.gz": lambda: gzip.compress(LINES),
    "a.parquet": parquet_bytes,
    "a.arrow": lambda: arrow_bytes(pa.ipc.new_file),
    "stream": lambda: arrow_bytes(pa.ipc.new_stream),
}
