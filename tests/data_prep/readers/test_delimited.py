"""CSV and TSV files: each row a record, none of them joined or lost in silence."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks, list_sources

Read = Callable[..., tuple[list[str], Counter[str]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def texts(
        content: str | bytes, name: str = "a.csv", **options: Any
    ) -> tuple[list[str], Counter[str]]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        chosen = InputOptions(path=path, **options)
        counts: Counter[str] = Counter()
        tasks = cut_into_tasks(list_sources({"text": chosen}))
        documents = (
            each
            for task in tasks
            for piece in task
            for each in read_documents(piece, chosen, counts)
        )
        return [document.text for document in documents], counts

    return texts


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", 'id,text\n1,"a, ""b""\n\nc"\n2,\n\n3,d\n', ['a, "b"\n\nc', "", "d"]),
        ("a.csv", "\ufefftext,id\r\nx,1\r\n", ["x"]),
        ("a.csv", "id;text\n1;a, b\n", ["a, b"]),
        ("a.csv", "id\ttext\n1\ta, b\n", ["a, b"]),
        ("a.csv", "\ufeffsep=;\r\nid;text\r\n1;a, b\r\n", ["a, b"]),
        ("a.csv", '"sep=\t"\nid\ttext\n1\ta, b\n', ["a, b"]),
        ("a.csv", "id,text\r1,x\r2,y\r", ["x", "y"]),
        ("a.csv", "text\nhello there\nyou\n", ["hello there", "you"]),
        ("a.CSV", 'id,text\n1,20" wide\n', ['20" wide']),
        ("a.tsv", 'id\ttext\n1\t"error\n2\t20" wide\n3\tok\n', ['"error', '20" wide', "ok"]),
        ("a.tsv", 'id\ttext\n1\t"two\nlines ""q"""\n2\tok\n', ['two\nlines "q"', "ok"]),
        ("a.tsv", 'id\ttext\tn\n1\t"two\nlines"\t5\n2\tok\t6\n', ["two\nlines", "ok"]),
        ("a.tsv", 'id\ttext\n1\t"a\tb"\n', ["a\tb"]),
        ("a.txt", "id\ttext\n1\tGrüße\n", ["Grüße"]),
    ],
)
def test_rows_become_documents(read: Read, name: str, content: str, expected: list[str]) -> None:
    """Quoted fields, delimiters, line ends and marks are read as they are meant."""
    kind = "csv" if name == "a.txt" else "auto"
    assert read(content, name, kind=kind) == (expected, {})


def test_spreadsheet_utf16_is_read(read: Read) -> None:
    """A table that a spreadsheet saved as UTF-16 is read."""
    assert read("id\ttext\n1\tGrüße\n".encode("utf-16"), "a.csv")[0] == ["Grüße"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("We present a method, which is fast.\nAnother one.\n", "no field 'text' but 'We present"),
        ("id,body\n1,a\n", r"no field 'text' but 'id', 'body': set input\.text_field"),
        ("text,text\na,b\n", "2 fields 'text'"),
        ('id,text\n1,"open\n2,b\n3,c\n', "begins at line 2 of .* does not end"),
        ("id,text\n1,a, b\n2,c\n", "Line 2 of .* has 3 fields and the header 2"),
        ('id,text\n1,"a"b\n2,c\n', "Line 2 of .* is not CSV"),
        ("id,text\n1\n2,c\n", "Line 2 of .* has 1 fields"),
    ],
)
def test_bad_table_names_line(read: Read, content: str, message: str) -> None:
    """A file without the column, and a bad row, are refused with the place."""
    with pytest.raises(UserError, match=message):
        read(content)


def test_bad_rows_skip_up_to_limit(read: Read) -> None:
    """Bad rows are counted as broken up to `max_bad_records`."""
    content = 'id,text\n1,a, b\n2,c\n3,"d"e\n4,f\n'
    assert read(content, max_bad_records=2) == (["c", "f"], {"broken": 2})


def test_open_quote_is_always_refused(read: Read) -> None:
    """A quotation mark without its pair may hide any number of rows, so no number is allowed."""
    with pytest.raises(UserError, match="does not end"):
        read('id,text\n1,"open\n2,b\n', max_bad_records=1000)
