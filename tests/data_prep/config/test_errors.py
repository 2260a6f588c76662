"""Whatever is wrong inside a list of a recipe is told by keys that stand in the file."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from data_prep.config.loader import Options, load_recipe
from data_prep.errors import UserError


class Circle(Options):
    kind: Literal["circle"]
    radius: float = Field(1.0, gt=0)


class Square(Options):
    kind: Literal["square"]
    side: int | list[int] = 1
    square: list[Literal["a", "b"]] = Field(["a"])


class Sheet(Options):
    copies: int
    shapes: list[Annotated[Circle | Square, Field(discriminator="kind")]] = Field(min_length=1)


class Drawing(Options):
    sheets: list[Annotated[Sheet, "one sheet"]] = Field([])
    order: Literal["up", "down"] | list[int] = "up"
    scale: float = 1.0
    ink: Path = Path("black")


def refusal_of(tmp_path: Path, content: str) -> str:
    path = tmp_path / "drawing.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        load_recipe(Drawing, path)
    sentence = str(refusal.value)
    assert "\n" not in sentence and str(path) in sentence
    return sentence.replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ("{kind: cirle}", "Unknown kind 'cirle' of KEY in FILE: did you mean 'circle'?"),
        ("{kind: 7}", "Unknown kind '7' of KEY in FILE: known kinds are circle, square."),
        ("{radius: 2}", "KEY in FILE has no kind: give it one of circle, square."),
        ("{kind: circle, raduis: 2}", "Unknown key 'KEY.raduis' in FILE: did you mean 'radius'?"),
        # A key of another kind is no near name.
        (
            "{kind: circle, side: 2}",
            "Unknown key 'KEY.side' in FILE: known keys are kind, radius.",
        ),
        (
            "circle",
            "KEY is 'circle' in FILE, but must be a group of keys: write {kind: circle}.",
        ),
        ("{kind: circle, radius: 0}", "KEY.radius is 0 in FILE, but must be greater than 0."),
        ("{kind: circle, radius: .inf}", "KEY.radius is inf in FILE, but must be a finite number."),
        (
            "{kind: square, side: 1.5}",
            "KEY.side is 1.5 in FILE, but must be a whole number or a list.",
        ),
        ("{kind: square, side: [1, x]}", "KEY.side.1 is 'x' in FILE, but must be a whole number."),
        # The kind and a key have the same name.
        ("{kind: square, square: [c]}", "KEY.square.0 is 'c' in FILE, but must be one of a, b."),
        ("{kind: square, square: 3}", "KEY.square is 3 in FILE, but must be a list: write [3]."),
        (
            "{kind: square, square: [a], side: x}",
            "KEY.side is 'x' in FILE, but must be a whole number or a list.",
        ),
    ],
)
def test_list_errors_name_their_key(tmp_path: Path, shape: str, sentence: str) -> None:
    """A mistake inside a list is named by a key that stands in the file."""
    found = refusal_of(tmp_path, f"sheets: [{{copies: 1, shapes: [{{kind: circle}}, {shape}]}}]")
    assert found.startswith(sentence.replace("KEY", "sheets.0.shapes.1"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "sheets: [{shapes: [{kind: circle}]}]",
            "The key 'sheets.0.copies' is missing in FILE: give it there, or as "
            "sheets.0.copies=VALUE.",
        ),
        (
            "sheets: [{copies: 1, shape: []}]",
            "Unknown key 'sheets.0.shape' in FILE: did you mean 'shapes'?",
        ),
        ("order: left", "order is 'left' in FILE, but must be one of up, down or a list"),
        ("order: [1.5]", "order.0 is 1.5 in FILE, but must be a whole number."),
        ("order: [true, false]", "order.0 is 'true' in FILE, but must be a whole number."),
        ("scale: yes", "scale is 'true' in FILE, but must be a number."),
        (
            "sheets: [{copies: true, shapes: [{kind: circle}]}]",
            "sheets.0.copies is 'true' in FILE, but must be a whole number.",
        ),
        ("scale: .nan", "scale is nan in FILE, but must be a finite number."),
        ("ink: 3", 'ink is 3 in FILE, but must be a path: put it in quotes, "3".'),
    ],
)
def test_union_errors_name_nearest_member(tmp_path: Path, content: str, sentence: str) -> None:
    """Of a union of types, the sentence is about those nearest to the value."""
    assert refusal_of(tmp_path, content).startswith(sentence)
