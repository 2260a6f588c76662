"""YAML of recipes: repeated keys are refused, merge keys and anchors stay."""

from pathlib import Path
from typing import Any

import pytest

from data_prep.config.yaml_text import parse_value, read_yaml
from data_prep.errors import UserError


def read(tmp_path: Path, content: str) -> dict[str, Any]:
    """Return what a file with this content holds."""
    path = tmp_path / "recipe.yaml"
    path.write_text(content, encoding="utf-8")
    return read_yaml(path)


@pytest.mark.parametrize(
    ("content", "key", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", "1 and 3"),
        ("a:\n  b:\n    c: 1\n    c: 1\n", "a.b.c", "3 and 4"),
        ("a: [{b: 1}, {b: 1, b: 2}]\n", "a.1.b", "1 and 1"),
        ("a: 1\n'a': 3\n", "a", "1 and 2"),
        ("x: &x {a: 1}\ny: {<<: *x, b: 1, b: 2}\n", "y.b", "2 and 2"),
    ],
)
def test_repeated_key_names_both_lines(tmp_path: Path, content: str, key: str, lines: str) -> None:
    """A key given twice is refused with its dotted name and both lines, also inside lists."""
    with pytest.raises(UserError) as refused:
        read(tmp_path, content)
    sentence = f"The key {key!r} is given twice in {tmp_path / 'recipe.yaml'}, in lines {lines}: "
    assert str(refused.value) == sentence + "keep one of them."


def test_merge_keys_are_allowed(tmp_path: Path) -> None:
    """A mapping may replace a key that it merges, and merge several mappings."""
    tree = read(tmp_path, "x: &x {a: 1, b: 2}\ny: &y {c: 3}\nz: {<<: [*x, *y], a: 5}\n")
    assert tree["z"] == {"a": 5, "b": 2, "c": 3}


def test_anchor_copies_are_independent(tmp_path: Path) -> None:
    """What an alias repeats is copied, so that changing one place leaves the other."""
    tree = read(tmp_path, "x: &x [1, 2]\ny: *x\n")
    tree["y"][0] = 7
    assert tree["x"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E3", -2000.0),
        ("1.5e-3", 1.5e-3),
        ("1e4x", "1e4x"),
        ("2026-01-31", "2026-01-31"),
        ("7", 7),
        ("[0, 2]", [0, 2]),
        ("a=b", "a=b"),
    ],
)
def test_plain_scalars_have_the_expected_type(text: str, value: Any) -> None:
    """Exponents without a dot are numbers, dates are text."""
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


def test_empty_file_is_an_empty_recipe(tmp_path: Path) -> None:
    """A file without keys, or with comments alone, gives no keys."""
    assert read(tmp_path, "") == read(tmp_path, "# nothing\n") == {}
