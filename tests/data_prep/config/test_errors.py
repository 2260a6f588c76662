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
            "KEY in FILE: Input should be a group of keys, such as {kind: NAME} (it is 'circle').",
        ),
        (
            "{kind: circle, radius: 0}",
            "KEY.radius in FILE: Input should be greater than 0 (it is 0",
        ),
        ("{kind: circle, radius: .inf}", "KEY.radius in FILE: Input should be a finite number"),
        ("{kind: square, side: 1.5}", "KEY.side in FILE: Input should be a valid integer, got a"),
        ("{kind: square, side: [1, x]}", "KEY.side.1 in FILE: Input should be a valid integer"),
        # The kind and a key have the same name.
        ("{kind: square, square: [c]}", "KEY.square.0 in FILE: Input should be 'a' or 'b' (it is"),
        ("{kind: square, square: 3}", "KEY.square in FILE: Input should be a valid list (it is 3)"),
        ("{kind: square, square: [a], side: x}", "KEY.side in FILE: Input should be a valid int"),
    ],
)
def test_what_is_wrong_in_a_list_is_named_by_its_key(
    tmp_path: Path, shape: str, sentence: str
) -> None:
    found = refusal_of(tmp_path, f"sheets: [{{copies: 1, shapes: [{{kind: circle}}, {shape}]}}]")
    assert found.startswith(sentence.replace("KEY", "sheets.0.shapes.1"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        # No override reaches into a list, so none is suggested.
        (
            "sheets: [{shapes: [{kind: circle}]}]",
            "The key 'sheets.0.copies' is missing in FILE: give it there.",
        ),
        (
            "sheets: [{copies: 1, shape: []}]",
            "Unknown key 'sheets.0.shape' in FILE: did you mean 'shapes'?",
        ),
        ("order: left", "order in FILE: Input should be 'up' or 'down' (it is 'left')."),
        ("order: [1.5]", "order.0 in FILE: Input should be a valid integer"),
        ("scale: .nan", "scale in FILE: Input should be a finite number (it is nan)."),
        ("ink: 3", "ink in FILE: Input should be a path, in quotes"),
    ],
)
def test_a_union_is_explained_by_the_member_that_comes_nearest(
    tmp_path: Path, content: str, sentence: str
) -> None:
    assert refusal_of(tmp_path, content).startswith(sentence)
