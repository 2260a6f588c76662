"""JSON as it occurs in files: the parser, what is wrong with a value, and whether lines hold it."""

import functools
import json
import re
from collections.abc import Callable
from typing import Any, Literal

WHITE_SPACE = " \t\n\r"
_SPACES = re.compile(f"[{WHITE_SPACE}]*")
Parser = Callable[[str, int], tuple[Any, int]]
# The checks of `json.loads` around the parser take longer than a short line. A number may have more
# digits than an `int` accepts, and is never text.
parse: Parser = json.JSONDecoder(parse_int=float).raw_decode
_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*\{\s*[\"}]")
_OBJECT = re.compile(rb'\{\s*"')
_LINE_SUFFIXES = (".jsonl", ".ndjson")
_SUFFIXES = (*_LINE_SUFFIXES, ".json")


def json_kind(start: bytes, suffix: str) -> Literal["jsonl", "json"] | None:
    """Return whether a file is JSON lines, other JSON, or neither.

    Args:
        start: its first bytes, from the first that is not white space.
        suffix: of its name, in lower case.
    """
    if _ARRAY_OF_OBJECTS.match(start):
        return "json"
    if _OBJECT.match(start) or suffix in _SUFFIXES:
        if start.startswith(b"["):
            return "jsonl" if suffix in _LINE_SUFFIXES else "json"
        return "json" if _spans_lines(start) else "jsonl"
    return None


def after_white_space(text: str, index: int) -> int:
    """Return the index of the next character that is not white space, or the length of the text."""
    spaces = _SPACES.match(text, index)
    return spaces.end() if spaces else index


def decoder_for(field: str, text: str) -> Parser:
    """Return a parser for a text that raises `ValueError` for a key of the field given twice."""
    keys = (field, *field.split(".")) if "." in field else (field,)
    if any(text.count(f'"{key}"') > 1 for key in keys):
        return _checked_parser(keys)
    return parse


def problem_of(error: Exception, text: str, begin: int) -> str:
    """Return what is wrong with the JSON value at an index of a text, and what to do."""
    if isinstance(error, _RepeatedKeyError):
        return str(error)
    problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if text.startswith("\x00", begin):
        problem = "NUL bytes, as in a file that was not written to its end"
    return f"is not JSON ({problem}): correct or remove it"


class _RepeatedKeyError(ValueError):
    """A key that occurs twice in an object, so that one of its values would be lost."""


@functools.lru_cache(maxsize=8)
def _checked_parser(keys: tuple[str, ...]) -> Parser:
    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            found = [key for key, _ in pairs]
            for key in keys:
                if found.count(key) > 1:
                    raise _RepeatedKeyError(
                        f"has the key {key!r} twice: rename or remove one of them"
                    )
        return record

    return json.JSONDecoder(parse_int=float, object_pairs_hook=check).raw_decode


def _spans_lines(start: bytes) -> bool:
    """Tell whether the first JSON value goes on after its first line."""
    line, newline, _ = start.partition(b"\n")
    text = line.decode("utf-8", "replace").rstrip()
    if not newline:
        return False
    try:
        parse(text, 0)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except RecursionError:
        return False
    return False
