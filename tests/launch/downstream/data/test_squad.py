"""Questions of SQuAD's JSON, with answers where the context has them."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import UserError
from launch.downstream.data.examples import Answer
from launch.downstream.data.squad import NOWHERE, read_squad


def write(folder: Path, *questions: dict[str, Any], context: str = "Ann is in Rome.") -> Path:
    """Write questions about one context."""
    paragraph = {"context": context, "qas": list(questions)}
    path = folder / "a.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}), encoding="utf-8")
    return path


def question(name: str, *answers: tuple[str, int], **more: Any) -> dict[str, Any]:
    """Return a question with answers."""
    found = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": "Who?", "answers": found, **more}


def test_answers_are_found(tmp_path: Path) -> None:
    """Answers keep their start; wrong starts are mended, lost ones marked, both counted."""
    path = write(
        tmp_path,
        question("a", ("Ann", 0)),
        question("b", ("Rome", 9)),
        question("c", ("Oslo", 3)),
        question("d", is_impossible=True),
    )
    examples, notes = read_squad(path)
    assert [example.label for example in examples] == [
        (Answer("Ann", 0),),
        (Answer("Rome", 10),),
        (Answer("Oslo", NOWHERE),),
        (),
    ]
    assert "1 answers are not where" in notes[0] and "1 answers are not in" in notes[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "not of SQuAD's form"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "not of SQuAD's form.*context"),
        ('{"data": []}', "has no questions"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    """A file of another form is refused with what it lacks."""
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_squad(path)


def test_ids_are_unique(tmp_path: Path) -> None:
    """Two questions of one id are refused: their predictions could not be told apart."""
    with pytest.raises(UserError, match="two questions with the id 'a'"):
        read_squad(write(tmp_path, question("a", ("Ann", 0)), question("a", ("Rome", 10))))
