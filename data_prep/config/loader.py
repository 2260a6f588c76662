"""Recipes: a YAML file, `key.path=value` overrides, and a typed tree that accepts nothing else.

Both halves of the project read their options here, so a misspelt key gets the same message
everywhere: the nearest name that exists.
"""

import difflib
import importlib.resources
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from data_prep.config.errors import Reading, explain, refuse_other_recipe
from data_prep.config.key_types import truth_as_words
from data_prep.config.overrides import Origins, apply_override, split_key
from data_prep.config.renames import present_name, rename_old_keys
from data_prep.config.yaml_text import read_yaml
from data_prep.errors import UserError

_NEAR = 0.7  # how alike a shipped file's name must be to be suggested


class Options(BaseModel):
    """A frozen group of recipe keys.

    Unknown keys are errors, and so are NaN and infinity, and true or false in place of a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, tree: Any) -> Any:
        """Pass true and false on as words where pydantic would take them for 1 and 0."""
        if not isinstance(tree, Mapping):
            return tree
        known = cls.model_fields
        return {
            key: truth_as_words(value, known[key].annotation) if key in known else value
            for key, value in tree.items()
        }


Recipe = TypeVar("Recipe", bound=Options)


def print_note(line: str) -> None:
    """Print a line about a recipe on stderr."""
    print(f"note: {line}", file=sys.stderr, flush=True)


def load_recipe(
    kind: type[Recipe],
    path: Path,
    overrides: Sequence[str] = (),
    *,
    commands: Mapping[str, str] | None = None,
    report: Callable[[str], None] = print_note,
) -> Recipe:
    """Read a recipe file, apply `a.b=c` overrides in order, and validate the result.

    Args:
        kind: of the recipe.
        path: of its file.
        overrides: words of the command line; an index reaches into a list, `stages.0.steps=40`.
        commands: top-level keys that only other recipes have, and the command that reads each.
        report: called with a line for each key that has its old name.

    Raises:
        UserError: for a missing file, a file that is not a YAML mapping, a key given twice, an
            override without `=`, an unknown key (with the nearest known one) or a value that does
            not fit.
    """
    file = find_shipped(path, "launch", "recipes")
    tree = read_yaml(file)
    origins = Origins(path)
    rename_old_keys(kind, tree, f"The recipe {path}", report)
    _apply_overrides(kind, tree, overrides, origins, report)
    reading = Reading(kind=kind, tree=tree, origins=origins, commands=commands or {})
    refuse_other_recipe(reading)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(reading, error)) from error


def find_shipped(path: Path, package: str, folder: str = "") -> Path:
    """Return `path` if it exists, else the file of that name which the package ships.

    This makes `launch/recipes/x.yaml` and `ds_configs/y.json` work from any folder once
    the project is installed.

    Raises:
        UserError: when neither exists; the message names the nearest shipped file, or all.
    """
    if path.is_file():
        return path
    shipped = Path(str(importlib.resources.files(package))) / folder
    if (shipped / path.name).is_file():
        return shipped / path.name
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it.")
    suffix = path.suffix or ".*"
    names = sorted(file.name for file in shipped.glob(f"*{suffix}") if file.suffix != ".py")
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=_NEAR)
    if near:
        raise UserError(f"There is no file {path}: did you mean {Path(package, folder, near[0])}?")
    raise UserError(f"There is no file {path}: correct the path, or take one of {shipped}.")


def _apply_overrides(
    kind: type[Options],
    tree: dict[str, Any],
    overrides: Sequence[str],
    origins: Origins,
    report: Callable[[str], None],
) -> None:
    """Lay the overrides over the tree, each under the present name of its key."""
    keys = [present_name(kind, split_key(word, overrides)) for word in overrides]
    spelled: dict[str, str] = {}
    for word, parts in zip(overrides, keys, strict=True):
        given, key = word.partition("=")[0], ".".join(parts)
        if spelled.setdefault(key, given) != given:
            raise UserError(
                f"The command line has both {spelled[key]} and {given}, which are names of one "
                f"key: keep {key} alone."
            )
    for word, parts in zip(overrides, keys, strict=True):
        given, key = word.partition("=")[0], ".".join(parts)
        if given != key:
            report(f"The key {given} is now called {key}.")
        apply_override(kind, tree, parts, word, origins)
    rename_old_keys(kind, tree, "The command line", report)
