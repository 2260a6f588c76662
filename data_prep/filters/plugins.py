"""User functions named in a recipe: a sentence splitter, a document filter."""

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

    A file is relative to the working directory, and need not be in a package. Every process loads
    the function itself, so it need not be picklable.

    Args:
        name: the value in the recipe.
        key: its recipe key, such as `clean.keep`, for the message.

    Raises:
        UserError: when there is no colon, no such module or function, when importing the module
            fails, and when what is found cannot be called.
    """
    module_name, colon, attribute = name.rpartition(":")
    if not (colon and module_name and attribute):
        raise UserError(
            f"{key} is {name!r}, which does not name a function: write package.module:function "
            "or folder/file.py:function."
        )
    module = _import(module_name, name, key)
    try:
        found = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise UserError(
            f"{key} is {name!r}, and {module_name} has no {attribute}: correct the name after the "
            "colon."
        ) from error
    if not callable(found):
        raise UserError(
            f"{key} is {name!r}, which is a {type(found).__name__} and cannot be called: name a "
            "function."
        )
    return found


def _import(module_name: str, name: str, key: str) -> ModuleType:
    try:
        return (
            _import_file(Path(module_name))
            if module_name.endswith(".py")
            else importlib.import_module(module_name)
        )
    # Importing runs the user's code, which may fail in any way, or end the process.
    except (Exception, SystemExit) as error:
        missing = isinstance(error, FileNotFoundError) or (
            isinstance(error, ModuleNotFoundError)
            # Not when the module is there and something that it imports is missing.
            and (module_name == error.name or module_name.startswith(f"{error.name}."))
        )
        if missing:
            raise UserError(
                f"{key} is {name!r}, and there is no {module_name}: correct it, install the "
                "package, or give the path of a .py file."
            ) from error
        raise UserError(
            f"{key} is {name!r}, and importing {module_name} fails ({type(error).__name__}: "
            f"{error}): correct that module."
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
