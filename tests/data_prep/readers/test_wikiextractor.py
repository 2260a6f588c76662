"""WikiExtractor's output, as its versions and options write it."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import InputOptions
from data_prep.readers.dispatch import read_documents
from data_prep.readers.sources import Slice
from data_prep.readers.wikiextractor import unescape

Whole = Callable[[Path], Slice]


def article(title: str, first: str, body: str, more: str = "") -> str:
    return f'<doc id="1" url="u" title="{title}"{more}>\n{first}\n\n{body}\n\n</doc>\n'


def texts(path: Path, whole: Whole, **options: Any) -> list[str]:
    chosen = InputOptions(path=path, **options)
    return [document.text for document in read_documents(whole(path), chosen, Counter())]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("title", "first"),
    [
        ('"Heroes" (album)', '"Heroes" (album)'),
        ('x->y "z"', 'x->y "z"'),
        ("&quot;Heroes&quot;", '"Heroes"'),
        ("&quot;Heroes&quot;", "&quot;Heroes&quot;"),
        ("R&B", "R&amp;B"),
        ("a > b", "a &gt; b"),
        ('"', '"'),
    ],
)
def test_title_in_any_form_is_dropped(
    tmp_path: Path, whole: Whole, title: str, first: str, line_end: str
) -> None:
    """The first line is dropped where it repeats the title, escaped or not."""
    path = tmp_path / "wiki_00"
    content = article(title, first, "One.") + article(title, first, "Two.", ' lang="en"')
    path.write_bytes(
        (content + article("Other", "No title.", "Three.")).replace("\n", line_end).encode()
    )
    assert texts(path, whole) == ["One.", "Two.", "No title.\n\nThree."]


def test_longer_title_keeps_first_line(tmp_path: Path, whole: Whole) -> None:
    """A first line that is only the beginning of the title stays."""
    path = tmp_path / "wiki_00"
    path.write_text(article('A" and "b', "A", "One."))
    assert texts(path, whole) == ["A\n\nOne."]


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("AT&amp;T &lt;b&gt;", "AT&T <b>"),
        ("&amp;amp; and &amp;lt;", "&amp; and &lt;"),
        ("AT&T", "AT&T"),
        ("AT&T writes &amp;", "AT&T writes &amp;"),
        ("a < b, written &lt;", "a < b, written &lt;"),
        ("?a=1&copy=2&section=3", "?a=1&copy=2&section=3"),
        ("one&nbsp;two", "one\xa0two"),
    ],
)
def test_entities_unescape_once_if_escaped(raw: str, plain: str) -> None:
    """A text is unescaped once, and only if all of it is escaped."""
    assert unescape(raw) == plain


def test_mark_before_article_is_dropped(tmp_path: Path, whole: Whole) -> None:
    """A byte-order mark between appended files hides no article, in any slices."""
    path = tmp_path / "wiki_00"
    path.write_text(article("A", "A", "One.") + "\ufeff" + article("B", "B", "Two."))
    source = whole(path).source
    for cut in range(1, source.size):
        pieces = (Slice(source, 0, cut), Slice(source, cut, source.size))
        chosen = InputOptions(path=path)
        found = [d.text for piece in pieces for d in read_documents(piece, chosen, Counter())]
        assert found == ["One.", "Two."], cut


@pytest.mark.parametrize("kind", ["auto", "wikiextractor"])
def test_json_output_is_unescaped(tmp_path: Path, whole: Whole, kind: str) -> None:
    """WikiExtractor's JSON is read like its text: unescaped once, without the title."""
    path = tmp_path / "wiki_00"
    records = [
        {"id": "1", "revid": "7", "url": "https://x.org/wiki?curid=1", "title": title, "text": text}
        for title, text in (("R&B", "R&amp;B\nIt is &lt;music&gt;."), ("B", "Body &amp;amp; soul."))
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert texts(path, whole, kind=kind) == ["It is <music>.", "Body &amp; soul."]


def test_other_json_is_not_unescaped(tmp_path: Path, whole: Whole) -> None:
    """JSON lines of another origin keep their entities and first lines."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "1", "title": "A", "text": "A\n&amp;"}) + "\n")
    assert texts(path, whole) == ["A\n&amp;"]
