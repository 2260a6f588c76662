"""Help about a recipe's keys: one screen, one group, one key, or everything.

All of it is read from the pydantic models: names, defaults, types, descriptions, docstrings.
"""

import textwrap
from collections.abc import Iterator, Sequence
from typing import get_origin

from pydantic.fields import FieldInfo

from data_prep.config.hints import hint_for_key
from data_prep.config.key_types import choices_of, describe_type, example_of, shown_default
from data_prep.config.keys import (
    Model,
    element_models_at,
    element_models_of,
    element_of,
    fields_at,
    group_of,
    kinds_of,
    models_at,
    unfold,
)
from data_prep.config.overrides import quoted
from data_prep.config.renames import present_name
from data_prep.errors import UserError

EVERYTHING = "all"
_INDENT = "  "
_LONG_SENTENCE = 130  # characters on the first screen
_NAME_COLUMNS = 34  # of a key and its default, in front of its meaning


def overview(kind: Model, common: Sequence[str], columns: int) -> str:
    """Return the groups with a line each, and the keys that users meet most."""
    lines = ["groups of keys:"]
    widest = max(map(len, kind.model_fields)) + 2
    for name, field in kind.model_fields.items():
        group = group_of(field)
        meaning = _first_line(group) if group else _first_sentence(field.description or "")
        lines += _entry(name, meaning, columns, indent=_INDENT, name_columns=widest)
    lines += ["", "keys met most, with their defaults:"]
    for key in common:
        (field,) = fields_at(kind, key.split("."))
        meaning = _first_sentence(field.description or "")
        lines += _entry(f"{key} = {shown_default(field)}", meaning, columns, indent=_INDENT)
    lines += ["", "`--help GROUP` and `--help KEY` describe a part, `--help all` everything."]
    return "\n".join(lines)


def describe(kind: Model, part: str, columns: int) -> str:
    """Return the help on a group, a key, a kind of a list's elements, or `all`.

    Raises:
        UserError: for a part that does not exist, with the nearest that does.
    """
    if part == EVERYTHING:
        return "\n".join(_everything(kind, columns))
    parts = present_name(kind, [p for p in part.split(".") if not p.isdigit()])
    above = [m for m in element_models_at(kind, parts[:-1]) if parts[-1] in kinds_of(m)]
    if above and kinds_of(above[0]) != tuple(parts[-2:-1]):
        return "\n".join(_kind(above[0], columns, frozenset()))
    if declared := fields_at(kind, parts):
        return "\n".join(_describe_field(".".join(parts), declared[0], columns))
    if inner := models_at(kind, parts):  # an entry of a mapping, such as inputs.wiki
        return "\n".join(_keys_of(inner[0], f"{part}.", columns))
    raise UserError(f"There is no key or group {part!r}: {hint_for_key(kind, part, parts)}")


def _everything(kind: Model, columns: int) -> Iterator[str]:
    groups = {name: group_of(field) for name, field in kind.model_fields.items()}
    plain = [name for name, group in groups.items() if group is None]
    for name, group in groups.items():
        if group is not None:
            yield from _wrapped(f"{name}: {_first_line(group)}", columns)
            yield from _keys_of(group, f"{name}.", columns)
            yield ""
    for name in plain:
        field = kind.model_fields[name]
        if element_models_of(field.annotation):
            yield from _describe_field(name, field, columns)
            yield ""
        else:
            yield from _entry(f"{name} = {shown_default(field)}", _meaning(field), columns, "")


def _describe_field(key: str, field: FieldInfo, columns: int) -> Iterator[str]:
    """Yield the help on a group, or on a key with its type, default and how to write it."""
    if group := group_of(field):
        yield from _wrapped(f"{key}: {_first_line(group)}", columns)
        yield from _keys_of(group, f"{key}.", columns)
        return
    yield from _wrapped(f"{key} = {shown_default(field)}", columns, "    ")
    yield from _paragraph(field.description or "", columns)
    yield from _paragraph(f"Type: {describe_type(field)}.", columns)
    yield from _paragraph(f"On the command line: {quoted(key, example_of(field))}", columns)
    if models := element_models_of(field.annotation):
        yield ""
        yield from _elements(f"{key}{_joint(field)}", models, columns)


def _joint(field: FieldInfo) -> str:
    """Return what stands between a key and the keys of its elements."""
    origins = [get_origin(each) for each in unfold(field.annotation) if element_of(each)]
    if not origins:
        return "."
    return ".NAME." if origins[0] is dict else ".0."


def _elements(key: str, models: Sequence[Model], columns: int) -> Iterator[str]:
    """Yield the keys of a list's elements, those that all kinds have once."""
    if not kinds_of(models[0]):
        yield f"its keys, such as {key}{next(iter(models[0].model_fields))}:"
        yield from _keys_of(models[0], "", columns)
        return
    shared = _shared_names(models)
    yield "kinds of elements, each with its keys:"
    for model in models:
        yield from _kind(model, columns, shared)
    yield f"keys of every kind, such as {key}{sorted(shared)[-1]}:"
    yield from _keys_of(models[0], "", columns, only=shared)


def _kind(model: Model, columns: int, hidden: frozenset[str]) -> Iterator[str]:
    kind = f"{_INDENT}{kinds_of(model)[0]}"
    yield from _wrapped(f"{kind}: {_first_line(model)}", columns, _INDENT * 2)
    names = frozenset(model.model_fields) - hidden - {"kind"}
    yield from _keys_of(model, "", columns, only=names, indent=_INDENT * 2)


def _shared_names(models: Sequence[Model]) -> frozenset[str]:
    """Return the keys that all kinds have, with the same meaning."""
    first, *others = models
    return frozenset(
        name
        for name, field in first.model_fields.items()
        if name != "kind"
        and all(
            name in other.model_fields and other.model_fields[name].description == field.description
            for other in others
        )
    )


def _keys_of(
    model: Model,
    prefix: str,
    columns: int,
    only: frozenset[str] | None = None,
    indent: str = _INDENT,
) -> Iterator[str]:
    """Yield an entry for each key of a group, those of groups inside it below it."""
    for name, field in model.model_fields.items():
        if only is not None and name not in only:
            continue
        if group := group_of(field):
            head = f"{prefix}{name}"
            if not field.is_required():
                head += f" = {shown_default(field)}"
            yield from _entry(head, field.description or _first_line(group), columns, indent)
            yield from _keys_of(group, f"{prefix}{name}.", columns, indent=indent + _INDENT)
            continue
        yield from _entry(
            f"{prefix}{name} = {shown_default(field)}", _meaning(field), columns, indent
        )
        inner = element_models_of(field.annotation)
        if inner and not kinds_of(inner[0]):
            below = f"{prefix}{name}{_joint(field)}"
            yield from _keys_of(inner[0], below, columns, indent=indent + _INDENT)


def _meaning(field: FieldInfo) -> str:
    """Return a description with the words that the key takes."""
    choices = choices_of(field)
    return " ".join(filter(None, (field.description, f"[{choices}]" if choices else "")))


def _entry(
    head: str,
    meaning: str,
    columns: int,
    indent: str = _INDENT,
    name_columns: int = _NAME_COLUMNS,
) -> list[str]:
    """Return a key in the left column and its meaning, wrapped, in the right one."""
    margin = " " * (len(indent) + min(name_columns, columns // 3))
    meant = _wrapped(meaning, columns - len(margin)) or [""]
    heads = _wrapped(f"{indent}{head}", columns, indent + _INDENT)
    if len(heads) == 1 and len(heads[0]) < len(margin) - 1:
        heads, meant = [f"{heads[0]:{len(margin)}}{meant[0]}".rstrip()], meant[1:]
    return [*heads, *(f"{margin}{line}".rstrip() for line in meant if line)]


def _paragraph(text: str, columns: int) -> list[str]:
    return _wrapped(f"    {text}", columns, "    ") if text else []


def _wrapped(text: str, columns: int, indent: str = "") -> list[str]:
    """Return the lines of a text; words, paths among them, stay whole."""
    return textwrap.wrap(
        text, columns, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _first_line(model: Model) -> str:
    return (model.__doc__ or "").strip().splitlines()[0] if model.__doc__ else ""


def _first_sentence(text: str) -> str:
    sentence = " ".join(text.split()).split("; ")[0].split(". ")[0]
    return sentence if len(sentence) <= _LONG_SENTENCE else sentence.split(": ")[0]
