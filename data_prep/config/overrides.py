"""Overrides: `key.path=value` words of the command line, laid over the tree of a recipe file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from data_prep.config.keys import Model, fields_at
from data_prep.config.yaml_text import parse_value
from data_prep.errors import UserError

_FEW = 3


@dataclass
class Origins:
    """Where each key of a recipe came from: its file, or the command line."""

    file: Path
    words: dict[str, str] = field(default_factory=dict)  # by the key that each of them set

    def where(self, key: str) -> str:
        """Return where a key was given, as the end of a phrase."""
        return "on the command line" if self.is_override(key) else f"in {self.file}"

    def is_override(self, key: str) -> bool:
        """Return whether the command line gave a key, or a group that holds it."""
        return any(key == own or key.startswith(f"{own}.") for own in self.words)

    def beneath(self, key: str) -> str:
        """Return a phrase about the overrides inside a group of keys, empty where there are none.

        Args:
            key: of the group; empty for the whole recipe.
        """
        inner = [w for own, w in self.words.items() if not key or own.startswith(f"{key}.")]
        if not inner:
            return ""
        shown = ", ".join(inner) if len(inner) <= _FEW else "keys"
        return f", with {shown} of the command line"


def split_key(word: str, all_words: Sequence[str]) -> list[str]:
    """Return the parts of an override's key.

    Args:
        word: the override.
        all_words: of the command line, where spaces around `=` have made more of it.

    Raises:
        UserError: when it has another form than `key.path=value`.
    """
    key, equals, text = word.partition("=")
    if any(each.startswith("=") for each in all_words) or key != key.strip():
        raise UserError(
            f"The override {word!r} must have the form key.path=value, without spaces around `=`, "
            "such as train.steps=40."
        )
    if not equals:
        raise UserError(
            f"The override {word!r} must have the form key.path=value, such as {word}=VALUE."
        )
    if not text:
        raise UserError(
            f"The override {word!r} has no value: write it behind `=`, without a space, or "
            f"{key}=null to clear the key."
        )
    if "" in key.split("."):
        raise UserError(f"The override {word!r} has an empty part in its key: correct its dots.")
    return key.split(".")


def apply_override(
    kind: Model, tree: dict[str, Any], parts: Sequence[str], word: str, origins: Origins
) -> None:
    """Set one key of a tree, creating the groups above it; an index reaches into a list.

    Raises:
        UserError: when the key leads through a value, beyond the end of a list, or the value is
            not valid YAML.
    """
    node: Any = tree
    created = ""  # the topmost group that only the command line gives
    for depth, part in enumerate(parts[:-1]):
        above, reached = parts[:depth], parts[: depth + 1]
        index = _index(node, part, above, word)
        if isinstance(node, dict) and node.get(part) is None:
            created = created or ".".join(reached)
            node[part] = _default_of(kind, reached)
        node = node[index]
        if not isinstance(node, dict | list):
            raise UserError(
                f"The override {word!r} takes {'.'.join(reached)!r} for a group of keys, but it is "
                f"the value {node!r}: set that key as a whole."
            )
    node[_index(node, parts[-1], parts[:-1], word)] = _value_of(word)
    key = ".".join(parts)
    for inner in [own for own in origins.words if own.startswith(f"{key}.")]:
        del origins.words[inner]
    origins.words[key] = word
    if created and not isinstance(_at(tree, created), list):
        origins.words.setdefault(created, word)


def quoted(key: str, value: str) -> str:
    """Return an override as the shell takes it: in quotes where it holds brackets or spaces."""
    word = f"{key}={value}"
    return f"'{word}'" if any(mark in word for mark in "[]{}*?&;|<>()$ #") else word


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[int(part) if isinstance(tree, list) else part]
    return tree


def _index(node: Any, part: str, above: Sequence[str], word: str) -> Any:
    """Return what `node[...]` takes for a part of a key."""
    if isinstance(node, dict):
        return part
    name = ".".join(above)
    if not part.isdigit():
        raise UserError(
            f"The override {word!r} names {part!r} in the list {name!r}: name an element by its "
            f"index, such as {name}.0."
        )
    if int(part) < len(node):
        return int(part)
    held = f"has the elements 0 to {len(node) - 1}" if node else "is empty"
    raise UserError(
        f"The override {word!r} names element {part} of the list {name!r}, which {held}: choose "
        f"one that exists, or give the whole list, {quoted(name, '[...]')}."
    )


def _default_of(kind: Model, reached: Sequence[str]) -> Any:
    """Return the default of a list that the file leaves out, else a new group."""
    for declared in fields_at(kind, reached):
        default = declared.get_default(call_default_factory=True)
        if isinstance(default, list | tuple):
            return [_plain(each) for each in default]
    return {}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    return value


def _value_of(word: str) -> Any:
    key, _, text = word.partition("=")
    try:
        return parse_value(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"The override {word!r} has a value that is not valid YAML: close its brackets, and "
            f"put text that holds any of [ ] {{ }} : # in quotes, such as {quoted(key, '[a, b]')}."
        ) from error
