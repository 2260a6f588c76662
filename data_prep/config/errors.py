"""What is wrong with a recipe, in one sentence: the key, its value, its source and a remedy.

pydantic says where a value lies in its own terms, among them the members of a union, which no
recipe has. They are left out here: a key is what stands in the file or on the command line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from data_prep.config.expectations import expectation_of, remedy_for, shown
from data_prep.config.hints import hint_for_key, nearest
from data_prep.config.keys import Model, element_models_at, fields_at, group_of, kinds_of
from data_prep.config.overrides import Origins
from data_prep.errors import UserError

_Problem = Mapping[str, Any]  # one of pydantic's, with its type, loc, msg, input and ctx


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A recipe as it was read.

    Attributes:
        kind: of the recipe.
        tree: its keys and values, overrides included.
        origins: where each of them came from.
        commands: top-level keys that only other recipes have, and the command that reads each.
    """

    kind: Model
    tree: Mapping[str, Any]
    origins: Origins
    commands: Mapping[str, str]


def refuse_other_recipe(reading: Reading) -> None:
    """Compare the top-level keys with those of this kind of recipe.

    Raises:
        UserError: when some belong to another command's recipe; the sentence names the command.
    """
    foreign = [
        key
        for key in reading.tree
        if key in reading.commands and key not in reading.kind.model_fields
    ]
    if not foreign:
        return
    in_file = [key for key in foreign if not reading.origins.is_override(key)]
    telling = sorted(in_file or foreign, key=list(reading.commands).index)
    command = reading.commands[telling[0]]
    if in_file:
        named = [key for key in in_file if reading.commands[key] == command]
        raise UserError(
            f"The recipe {reading.origins.file} is for {command}, by its key"
            f"{'s' if len(named) > 1 else ''} {', '.join(named)}: run that, or name another recipe."
        )
    raise UserError(
        f"Unknown key {foreign[0]!r} on the command line: it belongs to {command}, so leave it out."
    )


def explain(reading: Reading, error: ValidationError) -> str:
    """Return the sentence about the problem that says most."""
    problems = _choose(error)
    problem = problems[0]
    key = _key_of(problem, reading.tree)
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return _explain_unknown(reading, key, problem)
    if problem["type"] == "missing":
        return _explain_missing(reading, key)
    if problem["type"].startswith("union_tag"):
        return _explain_kind(reading, key, problem)
    if problem["type"] in ("value_error", "assertion_error"):
        return _explain_rule(reading, key, problem)
    return _explain_value(reading, key, problems)


def _choose(error: ValidationError) -> list[_Problem]:
    """Return the problems that say most: an unknown key, which is often a missing one as well.

    Of a union, each member has a problem; those that lie deepest were nearest to the value.
    """
    problems: list[_Problem] = [dict(problem) for problem in error.errors(include_url=False)]
    unknown = [p for p in problems if p["type"] in ("extra_forbidden", "invalid_key")]
    if unknown:
        return unknown[:1]
    value = problems[0]["input"]
    same = [p for p in problems if p["input"] is value or _holds(value, p["input"])]
    deepest = max(len(problem["loc"]) for problem in same)
    return [problem for problem in same if len(problem["loc"]) == deepest]


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


def _explain_unknown(reading: Reading, key: str, problem: _Problem) -> str:
    leaf = problem["loc"][-1]
    if not isinstance(leaf, str):
        return (
            f"The key {key or shown(leaf)} {reading.origins.where(key)} is no text: correct it, or "
            "put it in quotes."
        )
    hint = hint_for_key(reading.kind, key, problem["loc"])
    return f"Unknown key {key!r} {reading.origins.where(key)}: {hint}"


def _explain_missing(reading: Reading, key: str) -> str:
    override = f"{key}=VALUE"
    for declared in fields_at(reading.kind, key.split(".")):
        if group := group_of(declared):
            required = [n for n, f in group.model_fields.items() if f.is_required()]
            override = f"{key}.{(required or list(group.model_fields))[0]}=VALUE"
    return f"The key {key!r} is missing in {reading.origins.file}: give it there, or as {override}."


def _explain_kind(reading: Reading, key: str, problem: _Problem) -> str:
    models = element_models_at(reading.kind, problem["loc"], skip_unknown=True)
    kinds = [name for model in models for name in kinds_of(model)]
    where = reading.origins.where(key)
    if problem["type"] == "union_tag_not_found":
        return f"{key} {where} has no kind: give it one of {', '.join(kinds)}."
    given = str(problem["ctx"]["tag"])
    return f"Unknown kind {given!r} of {key} {where}: {nearest(given, kinds, 'kinds')}"


def _explain_rule(reading: Reading, key: str, problem: _Problem) -> str:
    """Return the sentence of a validator, which names its keys and the remedy itself."""
    message = str(problem["msg"])
    for prefix in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(prefix)
    origins = reading.origins
    where = f"{key} {origins.where(key)}" if key else str(origins.file)
    also = "" if origins.is_override(key) else origins.beneath(key)
    return f"{where}{also}: {message.rstrip('.')}."


def _explain_value(reading: Reading, key: str, problems: Sequence[_Problem]) -> str:
    value = problems[0]["input"]
    expected = list(dict.fromkeys(expectation_of(problem) for problem in problems))
    state = "empty" if value is None else shown(value)
    where = reading.origins.where(key)
    remedy = remedy_for(
        reading.kind, key, problems, on_command_line=reading.origins.is_override(key)
    )
    return f"{key} is {state} {where}, but must be {' or '.join(expected)}{remedy}"
