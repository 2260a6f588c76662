"""The command line of `launch/finetune.py`: a switch for each of its options."""

import argparse
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from data_prep.errors import UserError
from launch.command_line.parser import CommandParser
from launch.downstream.options import TASKS, FinetuneOptions

_METAVARS = {
    "model": "DIR",
    "teacher": "DIR",
    "out": "DIR",
    "train": "FILE",
    "dev": "FILE",
    "test": "FILE",
    "points": "FILE",
    "lr": "RATE",
    "label_separator": "MARK",
    "choose_by": "SCORE",
}


def finetune_parser(description: str | None) -> CommandParser:
    """Return a parser with a switch for each option."""
    parser = CommandParser(description=description)
    for name, field in FinetuneOptions.model_fields.items():
        settings: dict[str, Any] = {"help": field.description, "default": argparse.SUPPRESS}
        kind = _plain_type(field.annotation)
        default = field.default
        if kind is bool:
            settings["action"] = "store_true"
        elif get_origin(kind) is tuple:
            settings["nargs"] = "+"
            default = " ".join(f"{each}" for each in default)
        if field.is_required():
            settings["required"] = True
        elif default not in (None, False, "", PydanticUndefined):
            settings["help"] = f"{field.description} (default: {default})"
        if kind is not bool:
            settings["metavar"] = _METAVARS.get(name, "N" if kind in (int, float) else "COL")
        if name == "task":
            settings |= {"choices": TASKS, "metavar": "|".join(TASKS)}
        parser.add_argument(switch(name), **settings)
    return parser


def read_options(arguments: argparse.Namespace) -> FinetuneOptions:
    """Return the options of a command line.

    Raises:
        UserError: for the first value that does not fit; it names the switch.
    """
    try:
        return FinetuneOptions.model_validate(vars(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        value = first["input"]
        raise UserError(
            f"{switch(str(first['loc'][0]))} {value} does not fit ({first['msg']}): correct it."
        ) from None


def switch(name: str) -> str:
    """Return the switch of an option."""
    return "--" + name.replace("_", "-")


def _plain_type(annotation: Any) -> Any:
    """Return a type without its bounds and without None."""
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain_type(next(a for a in get_args(annotation) if a is not type(None)))
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    return annotation
