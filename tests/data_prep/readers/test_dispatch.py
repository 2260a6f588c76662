"""Documents of each format, with offsets and errors."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.formats import format_of
from data_prep.readers.sources import Slice, Source

Whole = Callable[[Path], Slice]

WIKI = """<doc id="1" url="u" title="Tea &amp; milk">
Tea &amp; milk

Tea is a drink.
It is &lt;hot&gt;.

</doc>
<doc id="2" url="u" title="Only a title">
Only a title

</doc>
<doc id="3" url="u" title="Name">
Another first line.
</doc>
"""


def texts(piece: Slice, **options: Any) -> list[str]:
    chosen = InputOptions(path=piece.source.path, **options)
    return [document.text for document in read_documents(piece, chosen, Counter())]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_text_splits_at_blank_lines(tmp_path: Path, whole: Whole) -> None:
    """Blank lines separate documents, and wrapped lines are joined."""
    path = write(tmp_path / "a.txt", "\ufeffOne line\r\nwraps.\r\n \t\r\n\r\nTwo.")
    assert texts(whole(path)) == ["One line wraps.", "Two."]


def test_text_newline_can_end_paragraph(tmp_path: Path, whole: Whole) -> None:
    """With `newline=paragraph` a newline ends a paragraph in plain text."""
    path = write(tmp_path / "a.txt", "First sentence\nSecond sentence\n\nNext document\n")
    expected = ["First sentence\nSecond sentence", "Next document"]
    assert texts(whole(path), newline="paragraph") == expected


def test_text_file_as_one_document(tmp_path: Path, whole: Whole) -> None:
    """With `documents=file` a file is one document whose blank lines end paragraphs."""
    path = write(tmp_path / "a.txt", "One\nwraps.\n\nTwo.\n\n\n\nThree.\n")
    assert [text.strip() for text in texts(whole(path), documents="file")] == [
        "One wraps.\nTwo.\nThree."
    ]


@pytest.mark.parametrize("compressed", [False, True])
def test_jsonl_reads_chosen_field(tmp_path: Path, whole: Whole, compressed: bool) -> None:
    """JSON lines give the text of the chosen field."""
    content = b'{"body": "A.\\r\\nB.", "text": "x"}\n\n{"body": "\\u00e9\\ud83d\\ude00"}\n'
    name, content = ("a.jsonl.gz", gzip.compress(content)) if compressed else ("a.jsonl", content)
    path = write(tmp_path / name, content)
    assert texts(whole(path), text_field="body") == ["A.\nB.", "é😀"]


def test_wikiextractor_drops_title_and_entities(tmp_path: Path, whole: Whole) -> None:
    """Articles lose markup, entities and the repeated title."""
    path = write(tmp_path / "wiki_00", WIKI)
    assert texts(whole(path)) == ["Tea is a drink.\nIt is <hot>.", "", "Another first line."]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("wiki_00", WIKI, "wikiextractor"),
        ("wiki_00", '{"id": "1", "text": "x"}\n', "jsonl"),
        ("a.jsonl", "[1]\n", "jsonl"),
        ("a.txt", "{not json}\n", "text"),
        ("a.txt", "Plain words.\n", "text"),
    ],
)
def test_kind_is_detected_by_content(
    tmp_path: Path, whole: Whole, name: str, content: str, kind: str
) -> None:
    """The format is detected by how a file begins."""
    piece = whole(write(tmp_path / name, content))
    assert format_of(piece.source, InputOptions(path=tmp_path)).kind == kind


@pytest.mark.parametrize("cut", range(1, 12))
@pytest.mark.parametrize("kind", ["text", "jsonl", "wikiextractor"])
def test_any_cut_gives_same_documents(
    tmp_path: Path, whole: Whole, prose: Callable[[str, int], str], kind: str, cut: int
) -> None:
    """Documents are the same for any cut of a file into slices."""
    blocks = prose("cut", 12).strip().split("\n\n")
    content = {
        "text": "\n" + "\n\n \n".join(block.replace(". ", ".\n") for block in blocks),
        "jsonl": "".join(json.dumps({"text": block}) + "\n" for block in blocks),
        "wikiextractor": "".join(
            f'<doc id="{i}" title="T">\nT\n\n{block}\n\n</doc>\n' for i, block in enumerate(blocks)
        ),
    }[kind]
    path = write(tmp_path / "file", content)
    size = path.stat().st_size
    step = size // cut + 1 if cut < 10 else cut
    source = Source(path, path.name, size)
    slices = [Slice(source, a, min(a + step, size)) for a in range(0, size, step)]
    found = [text for piece in slices for text in texts(piece, kind=kind)]
    assert found == blocks


def test_invalid_utf8_names_offset(tmp_path: Path, whole: Whole) -> None:
    """A file that is not UTF-8 is refused with the byte offset."""
    for content, offset in ((b"good line\nbad \xff here\n", 14), (b"\xef\xbb\xbfbad \xff\n", 7)):
        path = write(tmp_path / "bad.txt", content)
        message = rf"bad\.txt is not UTF-8: .*0xff at byte offset {offset} "
        with pytest.raises(UserError, match=message):
            texts(whole(path))
        assert "bad \ufffd" in texts(whole(path), errors="replace")[0]


def test_broken_json_line_is_named(tmp_path: Path, whole: Whole) -> None:
    """A broken JSON line is refused with its number."""
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n\n{"text": "cut\n')
    with pytest.raises(UserError, match=r"Line 3 of .*a\.jsonl is not JSON"):
        texts(whole(path))


@pytest.mark.parametrize("line", ['{"body": "x"}', '{"text": 5}', '["text"]'])
def test_missing_json_text_names_option(tmp_path: Path, whole: Whole, line: str) -> None:
    """A JSON line without text is refused with the option for its field."""
    path = write(tmp_path / "a.jsonl", line)
    with pytest.raises(UserError, match=r"Line 1 .* 'text': set input\.text_field"):
        texts(whole(path))


def test_lone_surrogate_is_refused_or_replaced(tmp_path: Path, whole: Whole) -> None:
    """Half a surrogate pair is refused or replaced."""
    path = write(tmp_path / "a.jsonl", '{"text": "a\\ud83d b"}')
    with pytest.raises(UserError, match="half a surrogate pair"):
        texts(whole(path))
    assert texts(whole(path), errors="replace") == ["a\ufffd b"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "short\n\n" + "line of words\n" * 20),
        ("a.jsonl", '{"text": "short"}\n\n' + json.dumps({"text": "x" * 101})),
        ("wiki", '<doc title="a">\n</doc>\n<doc title="b">\n' + "line of words\n" * 20 + "</doc>"),
    ],
)
def test_long_document_names_line(tmp_path: Path, whole: Whole, name: str, content: str) -> None:
    """A document that is too long is refused with its line."""
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=r"begins at line 3 of .* 100 characters.*max_document_ch"):
        texts(whole(path), max_document_chars=100, long_documents="refuse")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<doc title="a">\ntext\n', "The <doc> at line 1 .* never closed"),
        ('<doc title="a">\ntext\n<doc title="b">\n</doc>\n', "The <doc> at line 1 .* never closed"),
        ('<doc title="a">\ntext\n</doc>\nstray\n', "Line 4 .* outside <doc>"),
    ],
)
def test_damaged_wikiextractor_names_line(
    tmp_path: Path, whole: Whole, content: str, message: str
) -> None:
    """A damaged WikiExtractor file is refused with the line."""
    path = write(tmp_path / "wiki_00", content)
    with pytest.raises(UserError, match=message):
        texts(whole(path))
