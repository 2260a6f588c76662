"""The text of a record: a key, a path of keys, a string or a list of strings."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from data_prep.config.schema import InputOptions
from data_prep.readers.byte_window import plain_newlines
from data_prep.readers.limits import skip_broken

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_SHOWN_KEYS = 20
_MAX_KEY_CHARS = 40
_TYPES = {bool: "true or false", int: "a number", float: "a number", str: "a string"}
_TYPES |= {list: "an array", dict: "an object", type(None): "null"}


def text_of_record(record: Any, options: InputOptions) -> str | None:
    """Return the text of a record, or None if it is null; the strings of a list are paragraphs.

    Raises:
        ValueError: for a record without text, with what is wrong and what to do.
    """
    field = options.text_field
    if type(record) is not dict:
        or_array = "; or input.kind=json for an array of records" if type(record) is list else ""
        raise ValueError(f"is {_type_of(record)} and has {_missing(field)}{or_array}")
    value = record[field] if field in record else _follow(record, field)
    if value is None:
        return None
    if isinstance(value, list) and all(part is None or isinstance(part, str) for part in value):
        value = "\n".join(part for part in value if part is not None)
    if not isinstance(value, str):
        raise ValueError(f"has {_type_of(value)} and {_missing(field)}")
    return plain_newlines(value)


def whole_characters(text: str, options: InputOptions) -> str:
    """Replace the halves of surrogate pairs, which no tokenizer and no UTF-8 file accepts.

    Raises:
        ValueError: for such a half when `errors` is "strict".
    """
    if options.errors == "strict" and _LONE_SURROGATE.search(text):
        raise ValueError(
            "escapes half a surrogate pair, which is not Unicode: correct it, or replace it by "
            "U+FFFD with --errors replace"
        )
    return _LONE_SURROGATE.sub("\ufffd", text)


def kept_text(
    record: Any, location: Callable[[], str], options: InputOptions, counts: Counter[str]
) -> str | None:
    """Return the text of a record, or None after counting why it has none.

    Args:
        record: a JSON value.
        location: returns where it is, for an error message.
        options: how to read.
        counts: incremented: `null_text`, or `broken` for a record that is not as it should be.

    Raises:
        UserError: for more broken records than the options allow.
    """
    try:
        text = text_of_record(record, options)
        if text is not None and not text.isascii():
            text = whole_characters(text, options)
    except ValueError as problem:
        skip_broken(location, str(problem), options, counts)
        return None
    if text is None:
        counts["null_text"] += 1
    return text


def names_of(names: list[str]) -> str:
    """Return the names of fields for an error message; of very many, the first."""
    shown = [
        repr(name if len(name) <= _MAX_KEY_CHARS else name[:_MAX_KEY_CHARS] + "...")
        for name in names[:_MAX_SHOWN_KEYS]
    ]
    more = len(names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more else "")


def _follow(record: dict[str, Any], field: str) -> Any:
    """Return the value at a path of keys such as `meta.text`."""
    value: Any = record
    for key in field.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or key not in value:
            raise ValueError(
                f"has the keys {names_of(_paths(record, field))} and {_missing(field)}"
            )
        value = value[key]
    return value


def _paths(record: dict[str, Any], field: str) -> list[str]:
    """Return the keys of a record, and those of its objects where the field is a path."""
    paths = []
    for key, value in record.items():
        if "." in field and isinstance(value, dict):
            paths += [f"{key}.{inner}" for inner in value]
        else:
            paths.append(key)
    return paths


def _type_of(value: Any) -> str:
    return _TYPES.get(type(value), type(value).__name__)


def _missing(field: str) -> str:
    return f"no text under the key {field!r}: set input.text_field to the key that holds it"
