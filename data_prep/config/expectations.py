"""What a key's value must be, and how to write it, where pydantic speaks of Python's types."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.config.key_types import as_yaml
from data_prep.config.keys import Model, element_models_at, fields_at, kinds_of
from data_prep.config.overrides import quoted

_SHOWN = 60  # characters of a value
_NEAR = 0.7
_Problem = Mapping[str, Any]

# By pydantic's type of the problem; names in braces are in its ctx.
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "text that matches {pattern}",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of names",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "too_short": "a list of {min_length} or more",
}
_TEXT = ("string_type", "path_type")
_LISTS = ("list_type", "tuple_type")
_GROUPS = ("model_type", "model_attributes_type", "dict_type")


def expectation_of(problem: _Problem) -> str:
    """Return what the value must be, as the end of a sentence."""
    context = problem.get("ctx", {})
    if problem["type"] == "literal_error":
        return f"one of {', '.join(_choices_of(problem))}"
    if problem["type"] in _EXPECTED:
        return _EXPECTED[problem["type"]].format(**context)
    message = str(problem["msg"]).rstrip(".")
    return message.removeprefix("Input should be ").removeprefix("Input should ")


def remedy_for(
    kind: Model, key: str, problems: Sequence[_Problem], *, on_command_line: bool
) -> str:
    """Return how to write the value, with the punctuation around it."""
    value, types = problems[0]["input"], {problem["type"] for problem in problems}
    if value is None:
        return f": give it a value{_or_leave_out(kind, key)}."
    if types & {*_TEXT, "literal_error"} and isinstance(value, bool):
        return ": YAML reads yes, no, on and off as true and false, so put the word in quotes."
    if types & set(_TEXT) and not isinstance(value, dict | list):
        example = f"'{key}=\"{value}\"'" if on_command_line else f'"{value}"'
        return f": put it in quotes, {example}."
    if near := _near_choice(str(value).lower(), problems):
        return f": did you mean {near}?"
    if types & set(_LISTS) and (types <= set(_LISTS) or "," in str(value)):
        written = _as_list(kind, value, problems[0])
        return f": write {quoted(key, written) if on_command_line else written}."
    if types & set(_GROUPS):
        return f": {_group_example(kind, key, problems[0], on_command_line)}."
    return "."


def shown(value: Any) -> str:
    """Return a value as it is written, cut where it is long."""
    text = as_yaml(value) if isinstance(value, bool | dict | list) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def _choices_of(problem: _Problem) -> list[str]:
    """Return the values of a Literal, which pydantic lists as "'a', 'b' or 'c'"."""
    if problem["type"] != "literal_error":
        return []
    listed = str(problem["ctx"]["expected"]).replace(" or ", ", ")
    return [choice.strip("'") for choice in listed.split(", ")]


def _near_choice(value: str, problems: Sequence[_Problem]) -> str | None:
    """Return the choice that a value resembles, or that is a part of it."""
    choices = {each.lower(): each for problem in problems for each in _choices_of(problem)}
    near = difflib.get_close_matches(value, choices, n=1, cutoff=_NEAR)
    near = near or [each for each in choices if each in value.replace("-", "_").split("_")]
    return choices[near[0]] if near else None


def _or_leave_out(kind: Model, key: str) -> str:
    for declared in fields_at(kind, key.split(".")):
        default = declared.get_default(call_default_factory=True)
        if not declared.is_required() and isinstance(default, str | int | float):
            return f", or leave the key out for its default {default}"
        if not declared.is_required():
            return ", or leave the key out"
    return ""


def _as_list(kind: Model, value: Any, problem: _Problem) -> str:
    models = element_models_at(kind, problem["loc"], skip_unknown=True)
    if any(value in kinds_of(model) for model in models):
        return f"[{{kind: {value}}}]"
    if isinstance(value, str):
        return f"[{', '.join(part.strip() for part in value.split(','))}]"
    if isinstance(value, dict):
        return as_yaml([value])
    return f"[{value}]"


def _group_example(kind: Model, key: str, problem: _Problem, on_command_line: bool) -> str:
    models = element_models_at(kind, problem["loc"], skip_unknown=True)
    if kinds := [name for model in models for name in kinds_of(model)]:
        if problem["input"] in kinds:
            return f"write {{kind: {problem['input']}}}"
        return f"write {{kind: NAME}}, NAME one of {', '.join(kinds)}"
    names = list(models[0].model_fields) if models else ["NAME"]
    if on_command_line:
        return f"set one of its keys, such as {key}.{names[0]}=VALUE"
    first = str(problem["input"]).split()[:1]
    if first and first[0] in names:
        return f"put a colon behind {first[0]}"
    return f"write its keys below it, indented, such as `{names[0]}:`"
