"""Damaged files of every format give documents or one sentence, and nothing is lost in silence.

Each example builds a file of known records, changes some of its bytes, and reads it whole and in
slices, with small and large blocks.
"""

import csv
import io
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers import byte_window
from data_prep.readers.dispatch import read_documents
from data_prep.readers.sources import Slice, Source

KINDS = ("text", "lines", "jsonl", "json", "csv", "tsv", "wikiextractor", "wiki_json", "parquet")
EXAMPLES = 130  # of each kind, and as many of each kind that has records
MAX_SECONDS = 10
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# What people bring, and what parsers take for structure.
INSERTED = [
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\r", b"\n", b"\r\n", b"\n\n", b'"', b"'", b"\\"),
    *(
        b",",
        b"\t",
        b"{",
        b"}",
        b"[",
        b"]",
        b"<doc ",
        b"</doc>",
        b"\n</doc>\n",
        b"<",
        b"&",
        b"&amp;",
    ),
    *(b"\\ud800", b"\xc3", b"\xe3\x80\x80", b"null", b"NaN", b'{"text": "new"}', b"\x1f\x8b"),
    *(b"[" * 2000, b"\n\xe3\x80\x80\n", b"\n \xef\xbb\xbf\n"),
]
SUFFIXES = {"json": ".json", "csv": ".csv", "tsv": ".tsv", "jsonl": ".jsonl", "parquet": ".parquet"}


def documents(count: int) -> list[str]:
    return [f"Document {number} says: Größe & 漢字, “quoted”. It ends." for number in range(count)]


def encode(texts: list[str], kind: str) -> bytes:
    records = [{"id": number, "text": text} for number, text in enumerate(texts)]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    if kind == "text":
        return "\n\n".join(texts).encode()
    if kind == "lines":
        return "\n".join(texts).encode()
    if kind == "jsonl":
        return "".join(lines).encode()
    if kind == "json":
        return json.dumps(records, indent=1, ensure_ascii=False).encode()
    if kind in ("csv", "tsv"):
        sink = io.StringIO()
        writer = csv.DictWriter(sink, ("id", "text"), delimiter="," if kind == "csv" else "\t")
        writer.writeheader()
        writer.writerows(records)
        return sink.getvalue().encode()
    if kind == "wikiextractor":
        heads = [f'<doc id="{number}" url="u" title="T{number}">' for number in range(len(texts))]
        return "".join(
            f"{head}\nT{number}\n\n{texts[number].replace('&', '&amp;')}\n\n</doc>\n"
            for number, head in enumerate(heads)
        ).encode()
    if kind == "wiki_json":
        url = "https://en.wikipedia.org/wiki?curid="
        return "".join(
            json.dumps({"id": str(n), "url": f"{url}{n}", "title": "T", "text": text}) + "\n"
            for n, text in enumerate(texts)
        ).encode()
    sink_bytes = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink_bytes, row_group_size=3)
    return bytes(sink_bytes.getvalue())


def read(path: Path, step: int, **options: Any) -> tuple[list[str], Counter[str]]:
    """Return the documents of all slices of a file, and what was counted."""
    chosen = InputOptions(path=path, max_bad_records=1000, newline="paragraph", **options)
    source = Source(path, path.name, path.stat().st_size)
    counts: Counter[str] = Counter()
    found = [
        document.text
        for start in range(0, source.size, step)
        for document in read_documents(
            Slice(source, start, min(start + step, source.size)), chosen, counts
        )
    ]
    return found, +counts


def outcome(path: Path, step: int, **options: Any) -> tuple[list[str], Counter[str]] | None:
    """Return what `read` does, or None where the file is refused in one sentence."""
    started = time.monotonic()
    try:
        return read(path, step, **options)
    except UserError as error:
        assert "\n" not in str(error) and str(error).endswith("."), str(error)
        return None
    finally:
        assert time.monotonic() - started < MAX_SECONDS


def options_of(kind: str) -> dict[str, Any]:
    return {"documents": "line"} if kind == "lines" else {}


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(data=st.data())
def test_fuzz_any_slicing_agrees(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """A changed file gives the same documents and counts in any slices, or one sentence."""
    content = bytearray(encode(documents(data.draw(st.integers(1, 8))), kind))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.sampled_from([0, 0, 1, 5]))
        content[at : at + length] = data.draw(
            st.sampled_from(INSERTED) | st.binary(min_size=1, max_size=3)
        )
    if data.draw(st.integers(0, 3)) == 0:
        del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    path = tmp_path / f"file{SUFFIXES.get(kind, '')}"
    path.write_bytes(bytes(content))
    errors = data.draw(st.sampled_from(["strict", "replace"]))
    chosen = {**options_of(kind), "errors": errors}
    whole = outcome(path, len(content) + 1, **chosen)
    step = data.draw(st.integers(4, len(content) + 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_window, "BLOCK_BYTES", data.draw(st.integers(1, 64)))
        assert outcome(path, step, **chosen) == whole


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "parquet"])
@FUZZ
@given(data=st.data())
def test_fuzz_other_documents_survive(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """Bytes changed inside one document leave the others as they are, and it is kept or counted."""
    texts = documents(6)
    content = bytearray(encode(texts, kind))
    number = data.draw(st.integers(0, 5))
    begin = content.index(f"Document {number} ".encode()) + 5
    damage = st.binary(min_size=1, max_size=6).map(
        lambda raw: raw.translate(None, b'\n\r"\\<\t,\x00\x85\xa0\xc2\xe1\xe2\xe3\xef\xff\xfe')
    )
    inserted = data.draw(damage)
    content[begin:begin] = inserted
    path = tmp_path / f"file{SUFFIXES.get(kind, '')}"
    path.write_bytes(bytes(content))
    found = outcome(path, data.draw(st.integers(40, 400)), errors="replace", **options_of(kind))
    if found is None:
        # An array of JSON is one value: what follows a mistake cannot be read.
        assert kind == "json" or any(byte < 32 for byte in inserted), bytes(content)
        return
    others = [text for other, text in enumerate(texts) if other != number]
    kept = [text for text in found[0] if text in others]
    assert kept == others
    assert len(found[0]) + sum((found[1] - Counter(replaced=99)).values()) == len(texts)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"\n" * 1_000_000),
        ("a.txt", b"\n" + " \u3000".encode() * 500_000 + b"\nx"),
        ("a.txt", "größer ".encode() * 300_000),
        ("a.jsonl", b'{"text": "a"}' + b"\n" * 1_000_000),
        ("a.jsonl", b'{"text": "a"}' * 100_000),
        ("a.jsonl", b'{"text": "a", "x": ' + b"[" * 2_000_000),
        ("a.json", b"[" + b'{"text": "a"},' * 100_000 + b'{"text": "a"}]'),
        ("a.json", b'[{"text": "a"}' + b" " * 2_000_000 + b"]"),
        ("a.json", b'[{"text": "' + b"a " * 1_000_000 + b'"}]'),
        ("a.csv", b"id,text\n" + b"\n" * 1_000_000),
        ("a.csv", b'id,text\n1,"' + b'a""b\n' * 300_000 + b'"\n'),
        ("a.tsv", b"id\ttext\n" + b'1\t"a\n' * 200_000),
        ("a.tsv", b"id\ttext\n" + (b'"\n' + b"b\n" * 20_000) * 9),
        ("wiki", b'<doc title="T">\nT\n\n' + b"\n <do" * 400_000 + b"\n</doc>\n"),
        ("wiki", b'<doc title="T">\nT\n\n' + b"\n" * 1_000_000 + b"</doc>\n"),
        ("wiki", (b'<doc title="' + b'"' * 9000 + b'">\nT\n\nx\n</doc>\n') * 200),
        ("wiki", b'<doc title="T">\nT\n\n' + b"&amp; " * 400_000 + b"\n</doc>\n"),
    ],
)
def test_unusual_shapes_take_linear_time(name: str, content: bytes, tmp_path: Path) -> None:
    """Empty lines, one long line, brackets, quotation marks: seconds for millions of them."""
    path = tmp_path / name
    path.write_bytes(content)
    outcome(path, len(content) + 1)
