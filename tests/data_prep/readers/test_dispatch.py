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
from data_prep.readers.formats import kind_of
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


def test_blank_lines_separate_documents_and_wrapped_lines_are_joined(
    tmp_path: Path, whole: Whole
) -> None:
    path = write(tmp_path / "a.txt", "\ufeffOne line\r\nwraps.\r\n \t\r\n\r\nTwo.")
    assert texts(whole(path)) == ["One line wraps.", "Two."]


def test_a_newline_can_be_the_end_of_a_paragraph_in_plain_text(
    tmp_path: Path, whole: Whole
) -> None:
    path = write(tmp_path / "a.txt", "First sentence\nSecond sentence\n\nNext document\n")
    expected = ["First sentence\nSecond sentence", "Next document"]
    assert texts(whole(path), newline="paragraph") == expected


def test_a_file_can_be_one_document_whose_blank_lines_end_paragraphs(
    tmp_path: Path, whole: Whole
) -> None:
    path = write(tmp_path / "a.txt", "One\nwraps.\n\nTwo.\n\n\n\nThree.\n")
    assert [text.strip() for text in texts(whole(path), documents="file")] == [
        "One wraps.\nTwo.\nThree."
    ]


@pytest.mark.parametrize("compressed", [False, True])
def test_json_lines_give_the_text_of_the_chosen_field(
    tmp_path: Path, whole: Whole, compressed: bool
) -> None:
    content = b'{"body": "A.\\r\\nB.", "text": "x"}\n\n{"body": "\\u00e9\\ud83d\\ude00"}\n'
    name, content = ("a.jsonl.gz", gzip.compress(content)) if compressed else ("a.jsonl", content)
    path = write(tmp_path / name, content)
    assert texts(whole(path), text_field="body") == ["A.\nB.", "é😀"]


def test_wikiextractor_articles_lose_markup_entities_and_the_repeated_title(
    tmp_path: Path, whole: Whole
) -> None:
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
def test_the_kind_is_told_by_how_a_file_begins(
    tmp_path: Path, whole: Whole, name: str, content: str, kind: str
) -> None:
    piece = whole(write(tmp_path / name, content))
    assert kind_of(piece.source, InputOptions(path=tmp_path)) == kind


@pytest.mark.parametrize("cut", range(1, 12))
@pytest.mark.parametrize("kind", ["text", "jsonl", "wikiextractor"])
def test_documents_are_the_same_however_a_file_is_cut(
    tmp_path: Path, whole: Whole, prose: Callable[[str, int], str], kind: str, cut: int
) -> None:
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


def test_a_file_that_is_not_utf8_is_refused_with_its_byte_offset(
    tmp_path: Path, whole: Whole
) -> None:
    for content, offset in ((b"good line\nbad \xff here\n", 14), (b"\xef\xbb\xbfbad \xff\n", 7)):
        path = write(tmp_path / "bad.txt", content)
        message = rf"bad\.txt is not UTF-8: .*0xff at byte offset {offset} "
        with pytest.raises(UserError, match=message):
            texts(whole(path))
        assert "bad \ufffd" in texts(whole(path), errors="replace")[0]


def test_a_broken_json_line_is_named(tmp_path: Path, whole: Whole) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n\n{"text": "cut\n')
    with pytest.raises(UserError, match=r"Line 3 of .*a\.jsonl is not JSON"):
        texts(whole(path))


@pytest.mark.parametrize("line", ['{"body": "x"}', '{"text": 5}', '["text"]'])
def test_a_json_line_without_text_names_the_option(tmp_path: Path, whole: Whole, line: str) -> None:
    path = write(tmp_path / "a.jsonl", line)
    with pytest.raises(UserError, match=r"Line 1 .* 'text': set input\.text_field"):
        texts(whole(path))


def test_half_a_surrogate_pair_is_refused_or_replaced(tmp_path: Path, whole: Whole) -> None:
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
def test_a_document_that_is_too_long_is_refused_with_its_line(
    tmp_path: Path, whole: Whole, name: str, content: str
) -> None:
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
def test_a_damaged_wikiextractor_file_is_refused_with_its_line(
    tmp_path: Path, whole: Whole, content: str, message: str
) -> None:
    path = write(tmp_path / "wiki_00", content)
    with pytest.raises(UserError, match=message):
        texts(whole(path))
