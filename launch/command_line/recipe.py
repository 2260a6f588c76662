"""The command line of entry points that read a recipe: `--config`, overrides, `--help [PART]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data_prep.config.help_text import describe, overview
from data_prep.config.loader import Recipe, load_recipe, print_note
from launch.command_line.packages import is_main_rank
from launch.command_line.parser import CommandParser, screen_columns

# Top-level keys that tell one recipe from another, the most telling first, and who reads them.
_COMMANDS = {
    "methods": "launch/study.py",
    "tasks": "launch/study.py",
    "teacher_cache": "launch/write_teacher_cache.py",
    "signal": "launch/write_teacher_cache.py",
    "objectives": "launch/distill_student.py",
    "stages": "launch/distill_student.py",
    "student": "launch/distill_student.py",
    "teacher": "launch/distill_student.py",
    "model": "launch/train_teacher.py",
    "train": "launch/train_teacher.py or launch/distill_student.py",
    "run": "launch/train_teacher.py or launch/distill_student.py",
    "inputs": "launch/prepare_data.py",
    "input": "launch/prepare_data.py",
    "clean": "launch/prepare_data.py",
}


def recipe_parser(
    description: str | None, kind: type[Recipe], common_keys: str, example: str
) -> CommandParser:
    """Return a parser of `--config RECIPE`, `key.path=value` overrides and `--help [PART]`.

    Args:
        description: the docstring of the entry point.
        kind: of the recipe.
        common_keys: those that users meet most, for `--help`, separated by spaces.
        example: file name of a shipped recipe.
    """
    parser = CommandParser(
        description=(description or "").strip(), add_help=False, example=f"launch/recipes/{example}"
    )
    _add_help(parser, kind, common_keys.split())
    parser.add_argument(
        "--config", type=Path, required=True, metavar="RECIPE", help="a YAML recipe"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="replaces one key of the recipe; lists in quotes, 'key.path=[a, b]'; an index reaches "
        "into a list, key.0.path=value",
    )
    # The DeepSpeed launcher appends this to every script it starts; ranks come from RANK instead.
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def read_recipe(kind: type[Recipe], arguments: argparse.Namespace) -> Recipe:
    """Return the recipe that a command line names, its overrides applied.

    Raises:
        UserError: as `load_recipe`; the recipe of another command is refused by its name.
    """
    return load_recipe(
        kind, arguments.config, arguments.overrides, commands=_COMMANDS, report=_note_once
    )


def _note_once(line: str) -> None:
    if is_main_rank():
        print_note(line)


def _add_help(parser: CommandParser, kind: type[BaseModel], common_keys: Sequence[str]) -> None:
    """Add `--help [PART]`: one screen, or one part of a recipe's keys."""

    class ShowHelp(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: Any,
            option_string: str | None = None,
        ) -> None:
            columns = screen_columns()
            if not is_main_rank():
                parser.exit()
            if values:
                print(describe(kind, values, columns))
            else:
                print(parser.format_help() + "\n" + overview(kind, common_keys, columns))
            parser.exit()

    parser.add_argument(
        "-h",
        "--help",
        action=ShowHelp,
        nargs="?",
        const="",
        default=argparse.SUPPRESS,
        metavar="PART",
        help="show this screen, or what PART means: a group, a key, or `all`",
    )
