"""What a file is decides how it is read: by its first bytes, whatever its name."""

import io
import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.formats import check_format, format_of
from data_prep.readers.listing import list_sources
from data_prep.readers.sources import Slice

Whole = Callable[[Path], Slice]
RECORDS = [{"id": number, "text": f"Text {number}."} for number in range(3)]


def texts(piece: Slice, **options: Any) -> list[str]:
    chosen = InputOptions(path=piece.source.path, **options)
    return [document.text for document in read_documents(piece, chosen, Counter())]


def tar_archive() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo("book.txt")
        member.size = 4096
        archive.addfile(member, io.BytesIO(b"word " * 900))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_archive(), "is a tar archive.*unpack it"),
        (b"%PDF-1.7\n1 0 obj\n", "is a PDF file.*pdftotext"),
        (b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml" + bytes(9), "is an Office file"),
        (b"SQLite format 3\x00" + bytes(100), "is a SQLite database"),
        (pickle.dumps(RECORDS), "is a Python pickle"),
        (b"\x80\x02}q\x00X\x04\x00\x00\x00text", "is a Python pickle"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG image"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "is a sound file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "is an old Office file"),
    ],
)
def test_binary_formats_are_named(
    tmp_path: Path, whole: Whole, content: bytes, message: str
) -> None:
    """A binary file is refused by what it is, also if the recipe says that it is text."""
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    for kind in ("auto", "text"):
        with pytest.raises(UserError, match=message):
            texts(whole(path), kind=kind)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl", "a.txt.gz", "a.json.zst"])
def test_pointers_of_git_lfs_are_named(tmp_path: Path, whole: Whole, name: str) -> None:
    """What a clone without Git LFS holds is refused by what it is, whatever its suffix."""
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 3\n")
    for kind in ("auto", "text"):
        with pytest.raises(UserError, match=r"pointer of Git LFS.*`git lfs pull`"):
            texts(whole(path), kind=kind)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\ufeff\n<!-- saved -->\n<!DOCTYPE HTML><html><body>Hi", "is an HTML page"),
        ("<div>\n<p>One</p><p>Two</p></div>", "is an HTML page"),
        ('<?xml version="1.0"?>\n<TEI><text/></TEI>', "is an XML file"),
        ("<mediawiki xmlns='x'>\n<page>", "is a Wikipedia dump.*WikiExtractor"),
        ("{\\rtf1\\ansi Hello}", "is an RTF file"),
        ("WARC/1.0\r\nWARC-Type: conversion\r\n", "is a WARC file"),
        ("id,text\n1,One\n2,Two\n", "is a table, by the commas.*input.kind=csv"),
        ("a\tb\n" * 9, "is a table, by the tabs"),
    ],
)
def test_markup_is_refused_unless_text(
    tmp_path: Path, whole: Whole, content: str, message: str
) -> None:
    """Markup and tables are refused by name, and read as they are where the recipe says so."""
    path = tmp_path / "file.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        texts(whole(path))
    assert texts(whole(path), kind="text")


@pytest.mark.parametrize(
    "content",
    [
        "<Hello> he said.\n\nMore <of> it.",
        "[Illustration: a boat]\n\nChapter one.",
        "{A note} by the editor.",
        "ORCHARDS IN BLOOM\n\nIt was spring.",
        "ID3 is a tag.\n\nGIF89 is a format.",
        "One, two,\nbuckle my shoe;\nthree, four,\nknock at the door;\nfive, six,\npick up sticks.",
        "BM and PK and MZ are initials.",
        '"Quoted," she said,\n"is no CSV."',
    ],
)
def test_prose_is_text(tmp_path: Path, whole: Whole, content: str) -> None:
    """Prose that begins like another format is read as text."""
    path = tmp_path / "novel.txt"
    path.write_text(content)
    assert format_of(whole(path).source, InputOptions(path=path)).kind == "text"


def test_sample_corpus_is_text() -> None:
    """Every chapter of the shipped corpus is text, and none is taken for one long document."""
    options = InputOptions(path=Path("sample"))
    sources = list_sources({"text": options})
    assert {format_of(source, options).kind for source in sources} == {"text"}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", json.dumps(RECORDS), "json"),
        ("a.jsonl", json.dumps(RECORDS), "json"),
        ("a.txt", json.dumps(RECORDS, indent=2), "json"),
        ("a.json", json.dumps(RECORDS[0], indent=2), "json"),
        ("a.json", "\n".join(map(json.dumps, RECORDS)), "jsonl"),
        ("a.json", json.dumps(RECORDS[0]), "jsonl"),
        ("a.jsonl", '{"text": "cut\n{"text": "x"}\n', "jsonl"),
        ("a.CSV", "id,text\n1,a\n", "csv"),
        ("a.tsv", "id\ttext\n1\ta\n", "csv"),
        (
            "wiki_00",
            '{"id": "1", "revid": "2", "url": "https://x.org/wiki?curid=1", "title": "T"}',
            "wikiextractor_json",
        ),
    ],
)
def test_json_and_csv_are_told_apart(
    tmp_path: Path, whole: Whole, name: str, content: str, kind: str
) -> None:
    """Arrays, pretty-printed records, JSON lines and CSV are found by content and name."""
    path = tmp_path / name
    path.write_text(content)
    assert format_of(whole(path).source, InputOptions(path=path)).kind == kind


def test_lines_without_blank_line_warn(
    tmp_path: Path, whole: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    """Many lines without a blank one are named in the log, with what to set."""
    path = tmp_path / "lines.txt"
    long = b"An abstract. " * 100 + b"\n"
    for content, warned in (
        (b"A line.\n" * 300, True),
        (b"A line.\n\n" * 300, False),
        (b"A line.\n" * 30, False),
        (long * 60, True),
        ((long + b" \r\n") * 60, False),
    ):
        path.write_bytes(content)
        check_format(whole(path).source, InputOptions(path=path))
        printed = capsys.readouterr().err
        assert ("lines.txt has no blank line" in printed) == warned
        assert ("input.documents=line" in printed) == warned


@pytest.mark.parametrize("step", [1, 7, 100])
def test_each_line_as_document(tmp_path: Path, step: int) -> None:
    """With `documents=line` each line that is not blank is a document, for any slices."""
    from data_prep.readers.sources import Source

    path = tmp_path / "lines.txt"
    path.write_bytes(b"One.\r\n\nTwo two.\n   \n" + "Drei größer.".encode())
    source = Source(path, path.name, path.stat().st_size)
    pieces = [Slice(source, at, min(at + step, source.size)) for at in range(0, source.size, step)]
    found = [text for piece in pieces for text in texts(piece, documents="line")]
    assert found == ["One.", "Two two.", "Drei größer."]
