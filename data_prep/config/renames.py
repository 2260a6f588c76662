"""Keys that were renamed: recipes with the old name are read as if they had the new one.

A field declares its old names as `validation_alias=AliasChoices(new, old)`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from data_prep.config.keys import Model, models_at, old_names
from data_prep.errors import UserError

Report = Callable[[str], None]


def rename_old_keys(
    kind: Model, tree: Any, source: str, report: Report, parts: tuple[str, ...] = ()
) -> None:
    """Give every key in a tree its present name, in place, and report each change.

    Args:
        kind: of the recipe.
        tree: keys and values.
        source: of the tree, for errors.
        report: called with one line for each renamed key.
        parts: of the key at which the tree lies.

    Raises:
        UserError: when a key has its old and its new name side by side.
    """
    if isinstance(tree, list):
        for index, value in enumerate(tree):
            rename_old_keys(kind, value, source, report, (*parts, str(index)))
    if not isinstance(tree, dict):
        return
    for old, new in _names_at(kind, parts).items():
        if old in tree:
            before, now = ".".join((*parts, old)), ".".join((*parts, new))
            if new in tree:
                raise UserError(
                    f"{source} has both {now} and its old name {before}: keep the first alone."
                )
            tree[new] = tree.pop(old)
            report(f"The key {before} is now called {now}.")
    for key, value in tree.items():
        rename_old_keys(kind, value, source, report, (*parts, str(key)))


def present_name(kind: Model, parts: Sequence[str]) -> list[str]:
    """Return a key with the present names of all its parts."""
    present: list[str] = []
    for part in parts:
        present.append(_names_at(kind, present).get(part, part))
    return present


def _names_at(kind: Model, parts: Sequence[str]) -> dict[str, str]:
    """Return the present name for each old one in the group at a key."""
    return {
        old: name
        for model in models_at(kind, parts)
        for name, field in model.model_fields.items()
        for old in old_names(name, field)
    }
