"""The type of a recipe's key in words, its default as YAML writes it, and an example of a value."""

import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from data_prep.config.keys import element_of, kinds_of, unfold

_WORDS = {int: "integer", float: "number", bool: "true | false", str: "text", Path: "path"}
_PLURALS = {int: "integers", float: "numbers", str: "texts", Path: "paths"}
_EXAMPLES = {int: "8", float: "0.5", bool: "true", str: "TEXT", Path: "PATH"}
_BOUNDS = {"gt": "above {}", "ge": "{} or more", "lt": "below {}", "le": "{} or less"}
_WIDE = 10_000  # columns of a default, which is wrapped elsewhere


def describe_type(field: FieldInfo) -> str:
    """Return the type, its choices and its bounds, such as "number, above 0; or null"."""
    *others, last = [*dict.fromkeys(_words_of(each) for each in unfold(field.annotation))]
    joined = f"{', '.join(others)} or {last}" if others else last
    bounds = ", ".join(_bounds_of(field.metadata))
    return f"{joined}, {bounds}" if bounds else joined


def shown_default(field: FieldInfo) -> str:
    """Return the default as a recipe writes it, or that the key is required."""
    if field.is_required():
        return "required"
    return as_yaml(field.get_default(call_default_factory=True))


def as_yaml(value: Any) -> str:
    """Return a value on one line of YAML."""
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=_WIDE, sort_keys=False)
    return text.removesuffix("\n").removesuffix("...").rstrip()


def truth_as_words(value: Any, annotation: Any) -> Any:
    """Return a value with true and false as words where its type has numbers, also in a list."""
    members = unfold(annotation)
    if isinstance(value, bool):
        has_numbers = bool not in members and any(each in (int, float) for each in members)
        return as_yaml(value) if has_numbers else value
    elements = [element for each in members if (element := element_of(each)) is not None]
    if isinstance(value, list) and len(elements) == 1:
        return [truth_as_words(one, elements[0]) for one in value]
    return value


def choices_of(field: FieldInfo) -> str:
    """Return the words that a key takes, such as "a | b", empty where it takes any value."""
    words = [_words_of(each) for each in unfold(field.annotation)]
    return " | ".join(words[:1]) if get_origin(unfold(field.annotation)[0]) is Literal else ""


def example_of(field: FieldInfo) -> str:
    """Return a value of a key: a list where it takes one, else its default or one of its type."""
    members = [each for each in unfold(field.annotation) if each is not types.NoneType]
    if lists := [each for each in members if element_of(each) is not None]:
        return _example(lists[0])
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return _example(members[0]) if default is None else as_yaml(default)


def _words_of(annotation: Any) -> str:
    if annotation is types.NoneType:
        return "null"
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    element = element_of(annotation)
    if element is None:
        is_group = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return "group of keys" if is_group else _WORDS.get(annotation, "any value")
    if get_origin(annotation) is dict:
        return f"names, each with a {_element_words(element)}"
    return f"list of {_element_words(element)}"


def _element_words(element: Any) -> str:
    members = unfold(element)
    if isinstance(members[0], type) and issubclass(members[0], BaseModel):
        return "{kind: NAME, ...}" if kinds_of(members[0]) else "{key: value, ...}"
    return _PLURALS.get(members[0]) or " or ".join(map(_words_of, members))


def _bounds_of(metadata: list[Any]) -> list[str]:
    return [
        phrase.format(f"{getattr(each, name):g}")
        for each in metadata
        for name, phrase in _BOUNDS.items()
        if getattr(each, name, None) is not None
    ]


def _example(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return str(get_args(annotation)[0])
    element = element_of(annotation)
    if element is None:
        return _EXAMPLES.get(annotation) or _group_example(annotation)
    first = unfold(element)[0]
    if get_origin(annotation) is dict:
        return "{NAME: ...}"
    if isinstance(first, type) and issubclass(first, BaseModel):
        return (
            f"[{{kind: {kinds_of(first)[0]}}}]" if kinds_of(first) else f"[{_group_example(first)}]"
        )
    two = ("0", "2") if first is int else ("a", "b")
    return f"[{', '.join(two)}]"


def _group_example(model: type[BaseModel]) -> str:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    return f"{{{', '.join(f'{name}: ...' for name in required)}}}"


def _plain(value: Any) -> Any:
    """Return a value of the types that YAML has."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
