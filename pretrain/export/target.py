"""The folder of an export: what may be replaced, and how it appears in one step."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.manifest import find_damage

FACTS = "stillhouse.json"


def check_target(run_path: Path, export: Path) -> None:
    """Refuse, before any work, a path where an export cannot appear.

    Raises:
        UserError: for a file, the run folder or a path inside of it or around it, a folder that is
            no export of ours, or an export to which somebody has added files.
    """
    run, target = run_path.resolve(), export.resolve()
    if export.is_file():
        raise UserError(f"{export} is a file: choose the path of a folder for the export.")
    if parent := next((path for path in target.parents if path.is_file()), None):
        raise UserError(f"{parent} is a file, so {export} cannot be made: choose another path.")
    if target == run or run in target.parents:
        raise UserError(
            f"The export {export} lies inside the run folder {run_path}: choose a path outside."
        )
    if not target.exists():
        return
    facts = read_facts(target)
    if facts is None:
        raise UserError(
            f"{export} exists and is not an export of ours: remove it, or choose another."
        )
    added = {path.name for path in target.iterdir()} - {FACTS, *facts["files"]}
    if added:
        raise UserError(
            f"{export} has {min(added)}, which publishing did not write and would lose: move it "
            "away, or choose another path."
        )


def read_facts(export: Path) -> dict[str, Any] | None:
    """Return what an export states of itself, or None for a folder that is no export of ours."""
    try:
        facts = json.loads((export / FACTS).read_text(encoding="utf-8"))
        return facts if isinstance(facts["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_current(export: Path, stated: dict[str, Any]) -> bool:
    """Return whether an export is whole and states the same facts."""
    found = read_facts(export)
    if found is None:
        return False
    # Compared in the form of JSON, where tuples are lists.
    same = found == {**json.loads(json.dumps(stated)), "files": found["files"]}
    return same and find_damage(export, found, hashes=True) is None


def replace_export(building: Path, export: Path) -> None:
    """Rename a finished folder to its path; an earlier export there is removed."""
    if not export.exists():
        building.rename(export)
        return
    # Moved aside first: a kill in between must not lose the earlier export.
    replaced = export.with_name(export.name + ".replaced.partial")
    shutil.rmtree(replaced, ignore_errors=True)
    export.rename(replaced)
    building.rename(export)
    shutil.rmtree(replaced)


def export_name(export: Path) -> str:
    """Return what a model is called by default: the last part of its path, as it is written."""
    return Path(os.path.abspath(export)).name or "model"
