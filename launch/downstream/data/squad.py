"""Questions about paragraphs, in the JSON form of SQuAD 1.1, SQuAD 2.0, XQuAD and CMRC 2018."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.errors import UserError
from launch.downstream.data.examples import Answer, Example

NOWHERE = -1


class Questions(NamedTuple):
    """The questions of a file, and what is to be said about them."""

    examples: list[Example]
    notes: list[str]


def read_squad(path: Path) -> Questions:
    """Read the questions of a file, each with its context and right answers.

    A question that is marked `is_impossible`, as in SQuAD 2.0, has no answers. An answer that is
    not where `answer_start` says is moved to where the context has it; one that is nowhere starts
    at `NOWHERE`: it counts in scores, and is not trained on. Their numbers are in the notes.

    Raises:
        UserError: for a file that is missing, no JSON, or not of this form.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}: correct the path.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is no JSON ({error}): correct it.") from None
    counts = {"moved": 0, "lost": 0}
    try:
        examples = list(_examples(path, content, counts))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not of SQuAD's form, data > paragraphs > qas with question, id and answers "
            f"({type(error).__name__}: {error}): convert it."
        ) from None
    if not examples:
        raise UserError(f"{path} has no questions: give another file.")
    return Questions(examples, list(_notes(path, counts)))


def _notes(path: Path, counts: Mapping[str, int]) -> Iterator[str]:
    if counts["moved"]:
        yield f"{path}: {counts['moved']} answers are not where answer_start says, and were found"
    if counts["lost"]:
        yield f"{path}: {counts['lost']} answers are not in their context: scored, not trained on"


def _examples(path: Path, content: Any, counts: dict[str, int]) -> Iterator[Example]:
    seen: set[str] = set()
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            for question in paragraph["qas"]:
                name = str(question["id"])
                if name in seen:
                    raise UserError(f"{path} has two questions with the id {name!r}: correct it.")
                seen.add(name)
                yield Example(
                    id=name,
                    text=str(context),
                    pair=str(question["question"]),
                    label=_answers(context, question, counts),
                    where=f"Question {name} of {path}",
                )


def _answers(
    context: str, question: Mapping[str, Any], counts: dict[str, int]
) -> tuple[Answer, ...]:
    if question.get("is_impossible"):
        return ()
    found = []
    for answer in question["answers"]:
        text, start = answer["text"], int(answer["answer_start"])
        if context[start : start + len(text)] != text:
            start = _nearest(context, text, start)
            counts["lost" if start == NOWHERE else "moved"] += 1
        found.append(Answer(text, start))
    return tuple(found)


def _nearest(context: str, text: str, start: int) -> int:
    """Return where a text stands nearest to a character, or `NOWHERE`."""
    start = max(start, 0)
    found = (context.rfind(text, 0, start + len(text)), context.find(text, start))
    return min(
        (index for index in found if index >= 0),
        key=lambda index: abs(index - start),
        default=NOWHERE,
    )
