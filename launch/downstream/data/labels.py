"""Label cells: one label, several labels, or a number."""

import json
import math
from collections.abc import Sequence
from typing import Any

from data_prep.errors import UserError
from launch.downstream.data.tables import Row


def label_of(where: str, cell: Any) -> str:
    """Return a label as text; 1, 1.0 and "1" are one label, " a " and "a" another.

    Raises:
        UserError: for an empty cell.
    """
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    text = "" if cell is None else str(cell).strip()
    if not text:
        raise UserError(f"{where} has no label: complete it.")
    return text


def number_of(where: str, cell: Any) -> float:
    """Return the number of a cell.

    Raises:
        UserError: for a cell that holds none, or NaN or infinity.
    """
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where} has the label {cell!r}, which is no number: correct it.")
    return value


def labels_of(where: str, cell: Any, separator: str | None) -> tuple[str, ...]:
    """Return the labels of a cell, each once: a list, a JSON list, or text with a separator."""
    if isinstance(cell, str):
        cell = cell.split(separator) if separator is not None else json.loads(cell)
    found = (label_of(where, each) for each in cell or () if str(each).strip())
    return tuple(dict.fromkeys(found))


def are_lists(rows: Sequence[Row]) -> bool:
    """Return whether every last cell is a list, or text that is a JSON list."""
    return all(_is_list(cells[-1]) for _, cells in rows)


def _is_list(cell: Any) -> bool:
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            return False
    return isinstance(cell, list)
