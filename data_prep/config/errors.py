"""What is wrong with a recipe, in one sentence: the key, its value and what would do.

pydantic says where a value lies in its own terms, among them the members of a union, which no
recipe has. They are left out here: a key is what stands in the file.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

# How alike a name must be to be suggested; long dotted ones differ in much that matters little.
_NEAR, _NEAR_PATHS = 0.6, 0.4
_Problem = Mapping[str, Any]  # one of pydantic's, with its type, loc, msg, input and ctx
# Of the types whose own words are about Python.
_PLAIN = {
    "model_type": "Input should be a group of keys",
    "model_attributes_type": "Input should be a group of keys, such as {kind: NAME}",
    "path_type": "Input should be a path, in quotes where it looks like a number",
}


def explain(
    kind: type[BaseModel],
    known: Sequence[str],
    path: Path,
    tree: Mapping[str, Any],
    error: ValidationError,
) -> str:
    """Return the sentence.

    Args:
        kind: of the recipe.
        known: all of its dotted keys.
        path: where it was read.
        tree: what was read.
        error: what pydantic finds wrong with that.
    """
    problem = _choose(error)
    key, in_list = _key_of(problem, tree), any(isinstance(part, int) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        leaf = str(problem["loc"][-1])
        names = list(dict.fromkeys(_names_at(kind, problem["loc"]))) if in_list else list(known)
        groups = [] if in_list else sorted({name.rpartition(".")[0] for name in known} - {""})
        cutoff = _NEAR if in_list else _NEAR_PATHS
        hint = _hint(leaf if in_list else key, [*names, *groups], "keys", names, cutoff)
        return f"Unknown key {key!r} in {path}: {hint}"
    if problem["type"] == "missing":
        override = "" if in_list else f" or as {key}=VALUE"
        return f"The key {key!r} is missing in {path}: give it there{override}."
    if problem["type"].startswith("union_tag"):
        return _explain_kind(kind, key, path, problem)
    message = str(_PLAIN.get(problem["type"], problem["msg"]))
    message = message.removeprefix("Value error, ").rstrip(".")
    value = "" if problem["type"] == "value_error" else f" (it is {problem['input']!r})"
    where = f"{key} in {path}" if key else str(path)
    return f"{where}: {message}{value}."


def _choose(error: ValidationError) -> _Problem:
    """Return the problem that says most: an unknown key, which is often a missing one as well.

    Of a union, each member has a problem; the one that lies deepest was nearest to the value.
    """
    problems: list[_Problem] = [dict(problem) for problem in error.errors()]
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    if unknown:
        return unknown[0]
    value = problems[0]["input"]
    same = [p for p in problems if p["input"] is value or _holds(value, p["input"])]
    return max(same, key=lambda problem: len(problem["loc"]))


def _holds(value: Any, part: Any) -> bool:
    return isinstance(value, list) and any(each is part for each in value)


def _key_of(problem: _Problem, tree: Mapping[str, Any]) -> str:
    """Return the dotted key, without the kinds and members of unions that pydantic puts between."""
    parts: list[str] = []
    node: Any = tree
    may_be_kind = False  # of an element of a list, which comes before its keys
    for part in problem["loc"]:
        if may_be_kind and isinstance(node, dict) and node.get("kind") == part:
            may_be_kind = False
        elif _has(node, part):
            parts.append(str(part))
            node, may_be_kind = node[part], isinstance(part, int)
    if problem["type"] == "missing":
        parts.append(str(problem["loc"][-1]))
    return ".".join(parts)


def _has(node: Any, part: Any) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def _explain_kind(kind: type[BaseModel], key: str, path: Path, problem: _Problem) -> str:
    kinds = [name for model in _models_at(kind, problem["loc"]) for name in _kinds_of(model)]
    if problem["type"] == "union_tag_not_found":
        return f"{key} in {path} has no kind: give it one of {', '.join(kinds)}."
    given = problem["ctx"]["tag"]
    return (
        f"Unknown kind {given!r} of {key} in {path}: {_hint(given, kinds, 'kinds', kinds, _NEAR)}"
    )


def _hint(given: str, names: Sequence[str], what: str, listed: Sequence[str], cutoff: float) -> str:
    near = difflib.get_close_matches(given, names, n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else f"known {what} are {', '.join(listed)}."


def _names_at(kind: type[BaseModel], loc: Sequence[Any]) -> Iterator[str]:
    for model in _models_at(kind, loc[:-1]):
        yield from model.model_fields


def _models_at(kind: type[BaseModel], loc: Sequence[Any]) -> list[type[BaseModel]]:
    """Return the groups of keys that may stand at a place of a recipe."""
    models = [kind]
    for part in loc:
        if isinstance(part, int):
            continue
        chosen = [model for model in models if part in _kinds_of(model)]
        models = chosen or [
            inner
            for model in models
            if part in model.model_fields
            for inner in _models_in(model.model_fields[part].annotation)
        ]
    return models


def _kinds_of(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("kind")
    return () if field is None else get_args(field.annotation)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
