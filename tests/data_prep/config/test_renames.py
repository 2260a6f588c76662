"""Renamed keys: the old name is read as the new one, and reported once."""

from pathlib import Path

import pytest
from pydantic import AliasChoices, Field

from data_prep.config.help_text import describe
from data_prep.config.keys import dotted_keys
from data_prep.config.loader import Options, load_recipe
from data_prep.errors import UserError


class Part(Options):
    width: int = Field(1, validation_alias=AliasChoices("width", "breadth"))


class Recipe(Options):
    checkpointing: bool = Field(
        False,
        validation_alias=AliasChoices("checkpointing", "recompute"),
        description="recompute activations",
    )
    cache: Part = Field(Part(), validation_alias=AliasChoices("cache", "signal"))
    parts: list[Part] = Field([])


def load(tmp_path: Path, content: str, *overrides: str) -> tuple[Recipe, list[str]]:
    """Return the recipe, and what was reported while it was read."""
    path = tmp_path / "recipe.yaml"
    path.write_text(content, encoding="utf-8")
    notes: list[str] = []
    return load_recipe(Recipe, path, overrides, report=notes.append), notes


@pytest.mark.parametrize(
    ("content", "overrides", "note"),
    [
        ("recompute: true", [], "The key recompute is now called checkpointing."),
        ("", ["recompute=true"], "The key recompute is now called checkpointing."),
        (
            "checkpointing: false",
            ["recompute=true"],
            "The key recompute is now called checkpointing.",
        ),
    ],
)
def test_old_key_is_read_as_new(
    tmp_path: Path, content: str, overrides: list[str], note: str
) -> None:
    """An old key in the file or on the command line sets the new one; overrides win."""
    recipe, notes = load(tmp_path, content, *overrides)
    assert recipe.checkpointing and notes == [note]


def test_old_group_and_keys_inside_are_read(tmp_path: Path) -> None:
    """A renamed group may hold renamed keys, and so may elements of a list."""
    recipe, notes = load(tmp_path, "signal: {breadth: 2}\nparts: [{breadth: 3}]\n")
    assert (recipe.cache.width, recipe.parts[0].width) == (2, 3)
    assert sorted(notes) == [
        "The key cache.breadth is now called cache.width.",
        "The key parts.0.breadth is now called parts.0.width.",
        "The key signal is now called cache.",
    ]
    recipe, notes = load(tmp_path, "parts: [{}]", "signal.breadth=2", "parts.0={breadth: 5}")
    assert (recipe.cache.width, recipe.parts[0].width) == (2, 5)
    assert notes == [
        "The key signal.breadth is now called cache.width.",
        "The key parts.0.breadth is now called parts.0.width.",
    ]


@pytest.mark.parametrize(
    ("content", "overrides", "names"),
    [
        ("recompute: true\ncheckpointing: true", [], ("checkpointing", "recompute", "recipe.yaml")),
        ("signal: {}\ncache: {}", [], ("cache", "signal", "recipe.yaml")),
        ("", ["recompute=true", "checkpointing=true"], ("command line", "recompute")),
        ("", ["cache={width: 1, breadth: 2}"], ("command line", "cache.breadth")),
    ],
)
def test_both_names_are_refused(
    tmp_path: Path, content: str, overrides: list[str], names: tuple[str, ...]
) -> None:
    """The old and the new name side by side are refused by name."""
    with pytest.raises(UserError) as refused:
        load(tmp_path, content, *overrides)
    assert all(name in str(refused.value) for name in names)
    assert "keep" in str(refused.value)


def test_only_new_names_are_shown(tmp_path: Path) -> None:
    """Help, keys and errors use the new name alone; help on an old one explains the new one."""
    assert "recompute" not in " ".join(dotted_keys(Recipe))
    assert describe(Recipe, "recompute", 100).startswith("checkpointing = false")
    assert "signal" not in describe(Recipe, "all", 100)
    with pytest.raises(UserError, match=r"^cache\.width is 'x' on the command line"):
        load(tmp_path, "", "signal.breadth=x")
