"""Functions of the user's own, named in a recipe: a sentence splitter, a document filter."""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from data_prep.errors import UserError


def load_plugin(name: str, key: str) -> Callable[..., Any]:
    """Return the function that `package.module:function` or `folder/file.py:function` names.

    A file is relative to the working directory, and needs no package around it. Every process
    loads the function for itself, so it may be anything: nothing is pickled.

    Args:
        name: what the recipe says.
        key: the recipe key that says it, such as `clean.keep`, for the message.

    Raises:
        UserError: when there is no colon, no such module or function, when importing the module
            fails, and when what is found cannot be called.
    """
    place, colon, attribute = name.rpartition(":")
    if not (colon and place and attribute):
        raise UserError(
            f"{key} is {name!r}, which names no function: write package.module:function or "
            "folder/file.py:function."
        )
    module = _import(place, name, key)
    try:
        found = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise UserError(
            f"{key} is {name!r}, and {place} has no {attribute}: correct the name after the colon."
        ) from error
    if not callable(found):
        raise UserError(
            f"{key} is {name!r}, which is a {type(found).__name__} and cannot be called: name a "
            "function."
        )
    return found


def _import(place: str, name: str, key: str) -> ModuleType:
    try:
        return (
            _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    # Importing runs code of the user's own, which may fail in any way.
    except Exception as error:
        missing = isinstance(error, FileNotFoundError) or (
            isinstance(error, ModuleNotFoundError)
            # Not when the module is there and something that it imports is missing.
            and (place == error.name or place.startswith(f"{error.name}."))
        )
        if missing:
            raise UserError(
                f"{key} is {name!r}, and there is no {place}: correct it, install the package, or "
                "give the path of a .py file."
            ) from error
        raise UserError(
            f"{key} is {name!r}, and importing {place} fails ({type(error).__name__}: {error}): "
            "correct that module."
        ) from error


def _import_file(path: Path) -> ModuleType:
    # Under its whole path: it must not hide an installed module of the same name.
    spec = importlib.util.spec_from_file_location(str(path.resolve()), path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their own module
    spec.loader.exec_module(module)
    return module
