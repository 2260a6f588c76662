"""The tree of a recipe's keys, as its pydantic models declare it.

Keys are written with dots, as overrides are: `optim.lr`, and `objectives.0.weight` inside a list.
"""

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

Model = type[BaseModel]


def dotted_keys(kind: Model, prefix: str = "") -> Iterator[str]:
    """Yield every key of a recipe kind that is not inside a list or a mapping."""
    for name, field in kind.model_fields.items():
        if group := group_of(field):
            yield from dotted_keys(group, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def group_of(field: FieldInfo) -> Model | None:
    """Return the group of keys that a field holds, also where it may be left out."""
    annotation: Any = field.annotation
    is_union = get_origin(annotation) in (Union, types.UnionType)
    members = get_args(annotation) if is_union else (annotation,)
    return next((member for member in members if _is_model(member)), None)


def types_at(kind: Model, parts: Sequence[Any], *, skip_unknown: bool = False) -> list[Any]:
    """Return the types that a value may have, unions and `Annotated` unfolded.

    Args:
        kind: of the recipe.
        parts: of the key. The kind of a list's elements may stand for an index, or follow it.
        skip_unknown: ignore parts that lead nowhere, as the names of union members that pydantic
            puts between; else they give an empty list.
    """
    found: list[Any] = [kind]
    for part in parts:
        inner = [each for annotation in found for each in _inside(annotation, part)]
        found = inner if inner or not skip_unknown else found
    return [each for annotation in found for each in unfold(annotation)]


def fields_at(kind: Model, parts: Sequence[Any]) -> list[FieldInfo]:
    """Return the declarations of a key; empty where it does not exist."""
    models = element_models_at(kind, parts[:-1])
    return [m.model_fields[parts[-1]] for m in models if parts[-1] in m.model_fields]


def models_at(kind: Model, parts: Sequence[Any]) -> list[Model]:
    """Return the groups of keys that may stand at a key."""
    return [each for each in types_at(kind, parts) if _is_model(each)]


def element_models_at(
    kind: Model, parts: Sequence[Any], *, skip_unknown: bool = False
) -> list[Model]:
    """Return the groups of keys that may stand at a key, or be elements of its list."""
    types = types_at(kind, parts, skip_unknown=skip_unknown)
    return [model for annotation in types for model in element_models_of(annotation)]


def element_models_of(annotation: Any) -> list[Model]:
    """Return the groups of keys that a type, or the elements of a list of it, may be."""
    return [each for each in _elements(annotation) if _is_model(each)]


def kinds_of(model: Model) -> tuple[str, ...]:
    """Return the value of the key `kind` that tells a group from others; empty without it."""
    field = model.model_fields.get("kind")
    values = () if field is None or not field.is_required() else get_args(field.annotation)
    return values if len(values) == 1 else ()


def old_names(name: str, field: FieldInfo) -> list[str]:
    """Return the names that a key had before: the other choices of its validation alias."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [choice for choice in choices if isinstance(choice, str) and choice != name]


def unfold(annotation: Any) -> list[Any]:
    """Return the members of a union, without `Annotated` around any of them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return unfold(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [each for member in get_args(annotation) for each in unfold(member)]
    return [annotation]


def element_of(annotation: Any) -> Any:
    """Return the type of a list's or tuple's elements or of a mapping's values, else None."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (list, tuple):
        return arguments[0]
    return arguments[1] if get_origin(annotation) is dict else None


def _inside(annotation: Any, part: Any) -> list[Any]:
    """Return the types of the value that a part of a key leads to."""
    return [each for member in unfold(annotation) for each in _inside_member(member, part)]


def _inside_member(member: Any, part: Any) -> list[Any]:
    if _is_model(member):
        declared = [member.model_fields[part].annotation] if part in member.model_fields else []
        return [*declared, member] if part in kinds_of(member) else declared
    element = element_of(member)
    if element is None:
        return []
    is_index = isinstance(part, int) or str(part).isdigit()
    if is_index or get_origin(member) is dict:
        return [element]
    return _inside(element, part)


def _elements(annotation: Any) -> list[Any]:
    """Return the members of a type, and those of its elements where it is a list."""
    members = []
    for member in unfold(annotation):
        element = element_of(member)
        members += [member] if element is None else _elements(element)
    return members


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
