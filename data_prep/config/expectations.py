"""What a key's value must be, and how to write it, where pydantic speaks of Python's types."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.config.keys import Model, element_models_at, fields_at, kinds_of
from data_prep.config.overrides import quoted

_SHOWN = 60  # characters of a value
_NEAR = 0.5
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
    choices = [choice for problem in problems for choice in _choices_of(problem)]
    if near := difflib.get_close_matches(str(value), choices, n=1, cutoff=_NEAR):
        return f": did you mean {near[0]}?"
    if types & set(_LISTS):
        written = _as_list(value)
        return f": write {quoted(key, written) if on_command_line else written}."
    if types & set(_GROUPS):
        return f": {_group_example(kind, key, problems[0])}."
    return "."


def shown(value: Any) -> str:
    """Return a value as it is written, cut where it is long."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def _choices_of(problem: _Problem) -> list[str]:
    """Return the values of a Literal, which pydantic lists as "'a', 'b' or 'c'"."""
    if problem["type"] != "literal_error":
        return []
    listed = str(problem["ctx"]["expected"]).replace(" or ", ", ")
    return [choice.strip("'") for choice in listed.split(", ")]


def _or_leave_out(kind: Model, key: str) -> str:
    for declared in fields_at(kind, key.split(".")):
        default = declared.get_default(call_default_factory=True)
        if not declared.is_required() and isinstance(default, str | int | float):
            return f", or leave the key out for its default {default}"
        if not declared.is_required():
            return ", or leave the key out"
    return ""


def _as_list(value: Any) -> str:
    if isinstance(value, str):
        return f"[{', '.join(part.strip() for part in value.split(','))}]"
    if isinstance(value, dict):
        return "[{" + ", ".join(f"{key}: {each}" for key, each in value.items()) + "}]"
    return f"[{value}]"


def _group_example(kind: Model, key: str, problem: _Problem) -> str:
    models = element_models_at(kind, problem["loc"], skip_unknown=True)
    if kinds := [name for model in models for name in kinds_of(model)]:
        given = str(problem["input"])
        return (
            f"write {{kind: {given if given in kinds else 'NAME'}}}, NAME one of {', '.join(kinds)}"
        )
    if models:
        return f"give its keys below it, such as {key}.{next(iter(models[0].model_fields))}"
    return "give its keys below it"
