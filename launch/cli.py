"""What every entry point shares: errors as one sentence with a code, and the recipe's options."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data_prep.config.loader import Recipe, load_recipe, print_note
from data_prep.errors import UserError
from launch.command_parser import CommandParser, add_recipe_help
from launch.environment import REFUSED, is_main_rank, is_package_missing, missing_package

_RANK_0_FIRST_S = 10

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


def run_command(main: Callable[[], None]) -> None:
    """Run an entry point; a `UserError` prints its sentence alone and exits with code 2."""
    try:
        main()
    except UserError as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        if not is_package_missing(error):
            raise
        _refuse(missing_package(error))


def run_rank(main: Callable[[], None]) -> None:
    """Run an entry point that is one of several ranks, and end the process at once after it.

    Everything is written and closed by then. An ordinary exit would still take down the threads
    of the communication library, which was seen to abort a rank that had finished (SIGABRT,
    "terminate called without an active exception", once in some dozens of starts on a CPU), and
    the launcher then reports a failed run.
    """
    code = 0
    try:
        run_command(main)
    except SystemExit as ended:
        code = int(ended.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
    add_recipe_help(parser, kind, common_keys.split())
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


def _refuse(sentence: str) -> None:
    # Every rank finds the same mistake; the launcher ends the others once rank 0 has exited.
    if not is_main_rank():
        time.sleep(_RANK_0_FIRST_S)
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    raise SystemExit(REFUSED) from None
