"""Every published recipe has its source's settings, or names in its header where it has others.

python -m tests.launch.test_published_settings > docs/published_settings.md
"""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.loader import load_recipe
from pretrain.config.run import RunRecipe, TeacherRecipe
from pretrain.distil.config import StudentRecipe
from tests.launch.published.setting import Practice, Setting, ours
from tests.launch.published.students import PUBLISHED_STUDENTS
from tests.launch.published.teachers import PUBLISHED_TEACHERS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "published_settings.md"
PUBLISHED = PUBLISHED_TEACHERS | PUBLISHED_STUDENTS
CELLS = [(stem, cell) for stem, cells in PUBLISHED.items() for cell in cells]
_INTRODUCTION = """# Published settings

What the source of a recipe has, and what the recipe has. In bold: where they differ, which the
recipe's header says too. A test compares this table with the recipes
(`tests/launch/test_published_settings.py`).
"""


@cache
def recipe_of(stem: str) -> RunRecipe:
    kind = TeacherRecipe if stem in PUBLISHED_TEACHERS else StudentRecipe
    return load_recipe(kind, ROOT / "launch" / "recipes" / f"{stem}.yaml")


@cache
def header_of(stem: str) -> str:
    """Return the comment before the first key, on one line."""
    text = (ROOT / "launch" / "recipes" / f"{stem}.yaml").read_text(encoding="utf-8")
    lines = text[: text.index("\nrun:")].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)


@pytest.mark.parametrize(("stem", "cell"), CELLS, ids=lambda value: getattr(value, "name", value))
def test_setting_is_published_or_named(stem: str, cell: Setting | Practice) -> None:
    """A recipe's value is the published one, or its header names the difference."""
    if isinstance(cell, Setting) and ours(cell, recipe_of(stem)) == cell.published:
        return
    assert cell.named is not None, f"{ours(cell, recipe_of(stem))} is not {cell.published}"
    assert re.search(cell.named, header_of(stem)), f"the header does not name {cell}"


def test_every_named_difference_is_one() -> None:
    """No header is searched for a difference that no recipe has."""
    differ = {
        id(cell)
        for stem, cell in CELLS
        if isinstance(cell, Practice) or ours(cell, recipe_of(stem)) != cell.published
    }
    assert [cell for _, cell in CELLS if cell.named is not None and id(cell) not in differ] == []


def test_every_source_is_named() -> None:
    """A value without a source could not be checked."""
    assert [cell.name for _, cell in CELLS if not cell.source] == []


def test_page_is_rendered_from_the_table() -> None:
    """The page of docs/ is what this module prints."""
    assert PAGE.read_text(encoding="utf-8") == render()


def render() -> str:
    """Return the page."""
    return _INTRODUCTION + "".join(_section(stem) for stem in PUBLISHED)


def _section(stem: str) -> str:
    recipe = recipe_of(stem)
    lines = ["| setting | published | here | source |", "|---|---|---|---|"]
    for cell in PUBLISHED[stem]:
        here = ours(cell, recipe)
        shown = _shown(here) if here == cell.published else f"**{_shown(here)}**"
        lines.append(f"| {cell.name} | {_shown(cell.published)} | {shown} | {cell.source} |")
    return f"\n## {stem}.yaml\n\n" + "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    """Return a value as text: items by semicolons, parts of one by slashes."""
    if isinstance(value, list):
        return "; ".join(_shown(item) for item in value)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return f"{value[0]} {_shown(value[1])}"
    if isinstance(value, tuple):
        return " / ".join(_shown(item) for item in value)
    if isinstance(value, int):
        return f"{value:,}"
    return "the teacher's" if value is None else str(value)


if __name__ == "__main__":
    sys.stdout.write(render())
