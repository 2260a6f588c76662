"""Folders that a fine-tuning made: each has a mark, and no folder without it is removed."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from data_prep.errors import UserError

_MARK = ".finetune"


def check_out(out: Path, names: Iterable[str]) -> None:
    """Refuse a folder for results that holds anything else.

    Args:
        out: the folder, which need not exist.
        names: of the folders in it that are made, and replaced where an earlier call made them.

    Raises:
        UserError: as it says.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: name a folder.")
    if out.exists() and any(out.iterdir()) and not _is_own(out):
        raise UserError(
            f"--out {out} holds files that launch/finetune.py did not make: name a new folder."
        )
    for name in names:
        _check_own(out / name)


def mark(folder: Path) -> None:
    """Create a folder where there is none, and mark it as made here."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


def remove_earlier(folder: Path) -> None:
    """Remove a folder that an earlier call made, if there is one.

    Raises:
        UserError: for a folder that has no mark.
    """
    _check_own(folder)
    if folder.exists():
        shutil.rmtree(folder)


def _check_own(folder: Path) -> None:
    # A link may lead to what is kept elsewhere.
    if folder.is_symlink() or (folder.exists() and not _is_own(folder)):
        raise UserError(
            f"--out {folder.parent} would replace {folder}, which launch/finetune.py did not make: "
            "name a new folder."
        )


def _is_own(folder: Path) -> bool:
    return (folder / _MARK).is_file()
