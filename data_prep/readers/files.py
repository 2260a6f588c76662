"""The files of a recipe path: the file itself, all under a folder, or all that a glob matches."""

import fnmatch
import glob
import importlib.resources
import json
import os
from collections.abc import Iterator
from pathlib import Path

from data_prep.errors import UserError

_SAMPLE = Path("sample")
# Files that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write beside the data.
_STATE = "state.json"
_SPLITS = "dataset_dict.json"


def find_files(root: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    """Yield each file of a file, folder or glob, sorted, and its name relative to that input.

    Hidden files and folders are skipped. Of a folder that `Dataset.save_to_disk` wrote, only the
    data files that its `state.json` lists are read.

    Args:
        root: a file, a folder or a glob.
        pattern: a shell pattern for the names of files in folders.

    Raises:
        UserError: for a path that does not exist, a broken link, and a saved dataset of
            several splits.
    """
    if root == _SAMPLE and not root.exists():
        root = Path(str(importlib.resources.files("data_prep"))) / "sample_corpus" / "novels"
    if not root.exists() and glob.has_magic(str(root)):
        top = _fixed_part(root)
        # A match may be inside a folder that also matches.
        paths = list(dict.fromkeys(_glob(root, pattern)))
    else:
        top = root.parent
        paths = list(_files_under(root, pattern))
    for path in paths:
        if not path.exists():
            raise UserError(f"The input {path} is a broken link: remove it, or restore its target.")
        yield path, path.relative_to(top).as_posix()


def saved_dataset(folder: Path, split: str) -> Path | None:
    """Return the folder of one split if `save_to_disk` wrote the folder, else None.

    Raises:
        UserError: for a split that it does not have.
    """
    if (folder / _STATE).is_file():
        return folder
    if not (folder / _SPLITS).is_file():
        return None
    if split in (splits := _splits(folder)):
        return folder / split
    raise UserError(
        f"The dataset {folder} has no split {split!r} but {', '.join(splits)}: correct input.split."
    )


def _files_under(root: Path, pattern: str) -> Iterator[Path]:
    if root.is_file():
        yield root
    elif root.is_dir():
        yield from sorted(
            _visible_files(root, pattern), key=lambda path: path.relative_to(root).parts
        )
    elif root.is_symlink():
        yield root
    else:
        raise UserError(f"The input {root} does not exist: correct input.path.")


def _glob(root: Path, pattern: str) -> Iterator[Path]:
    found = sorted(map(Path, glob.glob(str(root), recursive=True)), key=lambda path: path.parts)
    if not found:
        raise UserError(f"The input {root} matches no file: correct input.path.")
    for path in found:
        yield from _files_under(path, pattern)


def _fixed_part(root: Path) -> Path:
    """Return the folder above the first wildcard of a glob."""
    parts = root.parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _visible_files(root: Path, pattern: str) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if _SPLITS in files:
            splits = _splits(Path(folder))
            raise UserError(
                f"{folder} is a saved dataset of the splits {', '.join(splits)}: give one of these "
                "folders as input.path, or the whole as input.dataset with input.split."
            )
        for name in _data_files(Path(folder)) if _STATE in files else files:
            if not name.startswith(".") and fnmatch.fnmatchcase(name, pattern):
                yield Path(folder, name)


def _data_files(folder: Path) -> list[str]:
    """Return the data files of a saved dataset; others, such as caches, repeat their contents."""
    listed = _read_json(folder / _STATE).get("_data_files")
    if not isinstance(listed, list):
        return sorted(path.name for path in folder.iterdir() if path.is_file())
    return [str(entry["filename"]) for entry in listed]


def _splits(folder: Path) -> list[str]:
    splits = _read_json(folder / _SPLITS).get("splits")
    return [str(split) for split in splits] if isinstance(splits, list) else []


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}): restore it, or remove it if it is not a dataset's."
        ) from error
    return content if isinstance(content, dict) else {}
