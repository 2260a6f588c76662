"""JSON lines, arrays and records over lines: every text is read, and every other record named."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.sources import Slice

Whole = Callable[[Path], Slice]
RECORDS = [{"id": number, "text": f"Text {number}, größer."} for number in range(40)]
TEXTS = [str(record["text"]) for record in RECORDS]


@pytest.fixture
def read(tmp_path: Path, whole: Whole) -> Callable[..., tuple[list[str], Counter[str]]]:
    def texts(content: str, name: str = "a.json", **options: Any) -> tuple[list[str], Counter[str]]:
        path = tmp_path / name
        path.write_text(content)
        counts: Counter[str] = Counter()
        chosen = InputOptions(path=path, **options)
        return [each.text for each in read_documents(whole(path), chosen, counts)], counts

    return texts


Read = Callable[..., tuple[list[str], Counter[str]]]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2, ensure_ascii=False),
        "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n",
        "\n".join(json.dumps(record, indent=1) for record in RECORDS),
        "".join(map(json.dumps, RECORDS)),
        json.dumps(RECORDS[:9]) + "\n" + json.dumps(RECORDS[9:]),
        "\r\n".join(map(json.dumps, RECORDS)),
        "\r".join(map(json.dumps, RECORDS)),
        "\n\n".join(map(json.dumps, RECORDS)) + "\n \n",
        "\n".join("\ufeff" + json.dumps(record) for record in RECORDS),
    ],
)
def test_json_in_any_layout(read: Read, content: str) -> None:
    """Arrays, pretty-printed, concatenated and marked records give the same documents."""
    assert read(content) == (TEXTS, {})


@pytest.mark.parametrize(
    ("record", "field", "text"),
    [
        ({"meta": {"text": "a", "n": 1}}, "meta.text", "a"),
        ({"meta.text": "literal", "meta": {"text": "a"}}, "meta.text", "literal"),
        ({"a": {"b": {"c": "deep"}}}, "a.b.c", "deep"),
        ({"text": ["One.", "Two.", None]}, "text", "One.\nTwo."),
        ({"meta": {"parts": ["One."]}}, "meta.parts", "One."),
        ({"type": "text", "text": "a"}, "text", "a"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_text_field_is_path_or_list(
    read: Read, record: dict[str, Any], field: str, text: str, name: str
) -> None:
    """The text may be inside of objects, under a key with a dot, or a list of paragraphs."""
    content = json.dumps(record if name == "a.jsonl" else [record])
    assert read(content, name, text_field=field) == ([text], {})


@pytest.mark.parametrize("record", [{"text": None}, {"meta": None}, {"meta": {"text": None}}])
def test_json_null_is_no_broken_record(read: Read, record: dict[str, Any]) -> None:
    """A null is counted as such."""
    field = "text" if "text" in record else "meta.text"
    assert read(json.dumps(record), text_field=field) == ([], {"null_text": 1})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"body": "x", "id": 1}', "has the keys 'body', 'id' and no text under the key 'text'"),
        ('"context"', "is a string and has no text"),
        ('{"text": ["a", 5]}', "has an array and no text"),
        ('{"text": true}', "has true or false and no text"),
        ('{"text": "a", "text": "b"}', "has the key 'text' twice"),
        ('{"text": "a"},', "a comma follows"),
        ('{"text": "a", "x": ' + "[" * 99_999, "nested too deeply"),
        ('{"text": "a"}\x00\x00', "is not JSON"),
    ],
)
def test_broken_record_says_what_it_is(read: Read, line: str, message: str) -> None:
    """A record without a text is refused with what it is, or counted."""
    content = '{"text": "good"}\n' + line + '\n{"text": "fine"}\n'
    with pytest.raises(UserError, match=f"^Line 2 of .*{message}"):
        read(content, "a.jsonl")
    found, counts = read(content, "a.jsonl", max_bad_records=1)
    assert found[0] == "good" and found[-1] == "fine" and counts == {"broken": 1}


def test_numbers_of_any_length_are_json(read: Read) -> None:
    """NaN, infinity and very long numbers are no reason to refuse a text."""
    line = '{"text": "a", "x": NaN, "y": -Infinity, "z": ' + "1" * 5000 + "}"
    assert read(line) == (["a"], {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(RECORDS)[:-9], "at line 1 of .* is not JSON .*what follows it cannot be read"),
        ('[{"text": "a"},\n{"text": "b"}\n{"text": "c"}]', "line 3 of .*a comma is missing"),
        ('[{"text": "a"},]', "Expecting value"),
        ('[{"text": "a"}, {"x": ' + "[" * 99_999, "nested too deeply"),
    ],
)
def test_damaged_array_is_refused(read: Read, content: str, message: str) -> None:
    """An array that cannot be read to its end is refused, whatever is allowed."""
    with pytest.raises(UserError, match=message):
        read(content, max_bad_records=9)


def test_array_given_as_lines_names_kind(read: Read) -> None:
    """An array where the recipe says JSON lines is refused with the right kind."""
    with pytest.raises(UserError, match=r"is an array .*input\.kind=json"):
        read(json.dumps(RECORDS), kind="jsonl")
