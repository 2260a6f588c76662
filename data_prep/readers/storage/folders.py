"""Folders and globs of the local disk: every file in them once, also behind symbolic links.

A folder that cannot be read is an error, because what it holds would be missing in silence.
"""

import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from data_prep.readers.storage.compression import unreadable
from data_prep.readers.storage.names import PassedOver, reason_to_pass

_Key = tuple[int, int]


def files_below(root: Path, pattern: str, passed: PassedOver) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder below `root`, itself included, with the names of its files.

    Folders reached by a symbolic link follow those that are not; a folder is read once, and never
    one that is above `root`.

    Args:
        root: an existing folder.
        pattern: of `input.pattern`.
        passed: takes the names of hidden folders, and of links to what is read elsewhere.
    """
    read: set[_Key] = set()
    above = {_key(folder) for folder in Path(os.path.realpath(root)).parents}
    linked = [root]
    while linked:
        folder = linked.pop(0)
        key = _key(folder)
        if key in read or key in above:
            reason = "linked to a folder above it" if key in above else "linked to a folder read"
            passed.add(reason, f"{folder.relative_to(root)}/")
            continue
        found: list[Path] = []
        yield from _walk(folder, root, pattern, passed, read, found)
        linked += sorted(found, key=lambda path: path.parts)


def expand_glob(root: Path) -> list[Path]:
    """Return what a glob matches, sorted; `**` stands for any folders, hidden ones excepted."""
    top = fixed_part(root)
    found = [top]
    parts = root.parts[len(top.parts) :]
    for index, part in enumerate(parts):
        if part == "**" and index + 1 < len(parts):
            found = [
                folder
                for base in found
                if base.is_dir()
                for folder, _ in files_below(base, "*", PassedOver())
            ]
        elif part != "**":
            found = [path for base in found for path in _matches(base, part)]
    return sorted(dict.fromkeys(found), key=lambda path: path.parts)


def leads_above(link: Path) -> bool:
    """Tell whether a link leads to a folder that holds it, so that its files are read anyway."""
    return link.is_symlink() and Path(os.path.realpath(link.parent)).is_relative_to(
        os.path.realpath(link)
    )


def fixed_part(root: Path) -> Path:
    """Return the folder above the first wildcard of a glob."""
    first = next(index for index, part in enumerate(root.parts) if glob.has_magic(part))
    return Path(*root.parts[:first])


def _walk(
    folder: Path,
    root: Path,
    pattern: str,
    passed: PassedOver,
    read: set[_Key],
    linked: list[Path],
) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those in it; append links to folders to `linked`."""
    pending = [folder]
    while pending:
        folder = pending.pop()
        key = _key(folder)
        if key in read:
            passed.add("linked to a folder read", f"{folder.relative_to(root)}/")
            continue
        read.add(key)
        files, inner = [], []
        for entry in _entries(folder):
            if not _is_folder(entry):
                files.append(entry.name)
            elif reason := reason_to_pass(entry.name, pattern):
                passed.add(reason, f"{Path(entry.path).relative_to(root)}/")
            elif entry.is_symlink():
                linked.append(Path(entry.path))
            else:
                inner.append(Path(entry.path))
        yield folder, files
        pending += sorted(inner, reverse=True)


def _matches(base: Path, part: str) -> Iterator[Path]:
    if not glob.has_magic(part):
        if os.path.lexists(base / part):
            yield base / part
        return
    if not base.is_dir():
        return
    for entry in _entries(base):
        hidden = entry.name.startswith(".") and not part.startswith(".")
        if not hidden and fnmatch.fnmatchcase(entry.name, part):
            yield base / entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise unreadable(folder, error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, which is refused as a file
        return False


def _key(folder: Path) -> _Key:
    try:
        status = folder.stat()
    except OSError as error:
        raise unreadable(folder, error) from error
    return status.st_dev, status.st_ino
