"""Recipes: a YAML file, `key.path=value` overrides, and a typed tree that accepts nothing else.

Both halves of the project read their options here, so a misspelt key gets the same answer
everywhere: the nearest name that exists.
"""

import importlib.resources
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from data_prep.config.errors import explain
from data_prep.errors import UserError

_SCREEN_COLUMNS = 100
_VALUE_COLUMNS = 40


class Options(BaseModel):
    """A frozen group of recipe keys; unknown keys are errors, and so are numbers without end."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Recipe = TypeVar("Recipe", bound=Options)


def load_recipe(kind: type[Recipe], path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply `a.b=c` overrides in order, and validate the result.

    Raises:
        UserError: for a missing file, a file that is not a YAML mapping, an override without
            `=`, an unknown key (with the nearest known one) or a value that does not fit.
    """
    tree = _read_yaml(find_shipped(path, "launch", "recipes"))
    for override in overrides:
        _apply_override(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(kind, list(dotted_keys(kind)), path, tree, error)) from error


def find_shipped(path: Path, package: str, folder: str = "") -> Path:
    """Return `path` if it exists, else the file of that name which the package ships.

    This makes `launch/recipes/x.yaml` and `ds_configs/y.json` work from any folder once
    the project is installed.

    Raises:
        UserError: when neither exists; the message lists what is shipped.
    """
    if path.is_file():
        return path
    shipped = Path(str(importlib.resources.files(package))) / folder
    if (shipped / path.name).is_file():
        return shipped / path.name
    names = sorted(file.name for file in shipped.glob(f"*{path.suffix}")) if path.suffix else []
    hint = f"; shipped ones are {', '.join(names)}" if names else ""
    raise UserError(f"There is no file {path}{hint}.")


def describe_keys(kind: type[BaseModel], prefix: str = "") -> str:
    """Return a line for every key of a recipe kind: its name, its default, its meaning."""
    lines = []
    for name, field in kind.model_fields.items():
        if group := _group_of(field):
            lines.append(describe_keys(group, f"{prefix}{name}."))
        else:
            default = field.get_default(call_default_factory=True)
            value = textwrap.shorten(str(default), _VALUE_COLUMNS, placeholder=" ...")
            shown = "required" if field.is_required() else value
            if get_origin(field.annotation) is Literal:
                shown += f" ({' | '.join(get_args(field.annotation))})"
            head = f"  {prefix + name + ' = ' + shown:38}  "
            room = max(_SCREEN_COLUMNS - len(head), 1)
            meaning = textwrap.shorten(field.description or "", room, placeholder=" ...")
            lines.append(f"{head}{meaning}".rstrip())
    return "\n".join(lines)


def dotted_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key of a recipe kind in the form that an override uses."""
    for name, field in kind.model_fields.items():
        if group := _group_of(field):
            yield from dotted_keys(group, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _group_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the group of keys that a field holds, also where it may be left out."""
    if get_origin(field.annotation) is dict:
        return None
    kinds = (field.annotation, *get_args(field.annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"The recipe {path} is not valid YAML: {problem}.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"The recipe {path} must be a mapping of keys, not a {type(tree).__name__}."
        )
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"The override {override!r} must have the form key.path=value.")
    *groups, leaf = key.split(".")
    for group in groups:
        inner = tree.setdefault(group, {})
        if not isinstance(inner, dict):
            raise UserError(
                f"The override {override!r} treats {group!r} as a group, but it is a value."
            )
        tree = inner
    try:
        tree[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"The override {override!r} has a value that is not valid YAML.") from error
