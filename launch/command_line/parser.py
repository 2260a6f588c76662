"""Command lines: help as wide as the terminal, and errors in one sentence."""

import argparse
import difflib
import shutil
import sys
from typing import Any, NoReturn

from data_prep.errors import UserError

_COLUMNS = (60, 100, 140)  # least, where no terminal says, most
_NEAR = 0.75
_REQUIRED = "the following arguments are required: "
_UNKNOWN = "unrecognized arguments: "


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions, and shows defaults where there are any."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=28, width=screen_columns(), **options)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are `UserError`s of one sentence.

    Args:
        example: a recipe for the sentence about a missing `--config`.
        options: of `ArgumentParser`.
    """

    def __init__(self, *, example: str = "", **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(**options)
        self._example = example

    def error(self, message: str) -> NoReturn:
        """Raise a UserError instead of printing the usage and exiting."""
        if message.startswith(_REQUIRED):
            raise UserError(self._missing(message.removeprefix(_REQUIRED)))
        if message.startswith(_UNKNOWN):
            raise UserError(self._unknown(message.removeprefix(_UNKNOWN).split()[0]))
        raise UserError(f"The command line has a mistake, {message}: see `{self.prog} --help`.")

    def _missing(self, names: str) -> str:
        recipes = [word for word in sys.argv[1:] if word.endswith((".yaml", ".yml"))]
        if "--config" in names and recipes:
            return f"The recipe {recipes[0]} stands alone: write --config {recipes[0]}."
        if "--config" in names:
            return f"No recipe is named: add --config RECIPE, such as --config {self._example}."
        return f"The command line lacks {names}: see `{self.prog} --help`."

    def _unknown(self, word: str) -> str:
        name = word.lstrip("-")
        if self._example and "." in name.partition("=")[0]:
            value = "" if "=" in name else "=VALUE"
            return (
                f"Unknown option {word}: keys of the recipe have no dashes, so write {name}{value}."
            )
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=_NEAR)
        if near:
            return f"Unknown option {word}: did you mean {near[0]}?"
        if self._example:
            return f"Unknown option {word}: keys of the recipe are written key.path=value."
        return f"Unknown option {word}: `{self.prog} --help` lists those that exist."


def screen_columns() -> int:
    """Return the width for help: the terminal's within reason, 100 where there is none."""
    least, usual, most = _COLUMNS
    return min(max(shutil.get_terminal_size((usual, 24)).columns, least), most)
