"""The files of a recipe path: the file itself, all under a folder, or all that a glob matches."""

import glob
import importlib.resources
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.errors import UserError
from data_prep.readers.storage.compression import unreadable
from data_prep.readers.storage.folders import expand_glob, files_below, fixed_part, leads_above
from data_prep.readers.storage.names import (
    PassedOver,
    endings,
    is_about_data,
    matches,
    printable,
    reason_to_pass,
)
from data_prep.readers.storage.remote import RemotePath, find_remote, shown_url

_SAMPLE = Path("sample")
# Files that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write beside the data.
_STATE = "state.json"
_SPLITS = "dataset_dict.json"
_SHOWN_ENDINGS = 8
# What the hub's client makes of a repository on the disk.
_HUB_CACHE = ("blobs", "refs", "snapshots")


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the input.

    Attributes:
        path: where it is.
        name: its path from the input folder on.
        size: bytes.
        by_name: whether the recipe gives its path, so that its name decides nothing.
        status: what the local file system tells of it.
    """

    path: Path | RemotePath
    name: str
    size: int
    by_name: bool = False
    status: os.stat_result | None = field(default=None, compare=False, repr=False)


def find_files(root: Path | str, pattern: str, passed: PassedOver | None = None) -> list[Found]:
    """Return the files of a file, folder, glob or address of remote storage that hold text.

    They are sorted by the parts of their names, and each is there once. Hidden files, those whose
    names begin with `_`, empty files, and files about the data, such as a README beside others, are
    passed over. Of a folder that `Dataset.save_to_disk` wrote, only the data files that its
    `state.json` lists are read.

    Args:
        root: a file, a folder, a glob, or an address such as s3://bucket/folder.
        pattern: a shell pattern for the names of files in folders.
        passed: takes the names that are passed over.

    Raises:
        UserError: for a path that does not exist or cannot be read, a broken link, a pattern that
            no name matches, and a saved dataset of several splits.
    """
    passed = PassedOver() if passed is None else passed
    if isinstance(root, str):
        found, others = _find_remote(root, pattern, passed)
    else:
        try:
            found, others = _find_local(root, pattern, passed)
        except OSError as error:
            raise unreadable(root, error) from error
    if not found and others:
        raise _nothing_matches(root, pattern, others)
    filled = list(_not_empty(found, passed))
    return list(_without_files_about_data(filled, root, pattern, passed))


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


def _find_remote(url: str, pattern: str, passed: PassedOver) -> tuple[list[Found], list[str]]:
    """Return the files of an address, and the names that the pattern does not match."""
    files, is_file = find_remote(url)
    found, others = [], []
    for path, parts in sorted(files, key=lambda file: file[1]):
        name = "/".join(parts)
        reasons = (reason_to_pass(part, pattern) for part in parts[1:])
        if not is_file and (reason := next(filter(None, reasons), None)):
            passed.add(reason, name)
        elif not is_file and not matches(parts[-1], pattern):
            others.append(name)
            passed.add("not matched by the pattern", name)
        else:
            found.append(Found(path, name, path.size, by_name=is_file))
    return found, others


def _find_local(root: Path, pattern: str, passed: PassedOver) -> tuple[list[Found], list[str]]:
    if root == _SAMPLE and not root.exists():
        root = Path(str(importlib.resources.files("data_prep"))) / "sample_corpus" / "novels"
    others: list[str] = []
    if not root.exists() and glob.has_magic(str(root)):
        top = fixed_part(root)
        roots = expand_glob(root)
        if not roots:
            raise UserError(f"The input {root} matches no file: correct input.path.")
        paths = [
            (path, False)
            for each in roots
            for path in _files_of_match(each, root.name, pattern, passed, others)
        ]
    else:
        top = root.parent
        by_name = not root.is_dir()
        paths = [(path, by_name) for path in _files_under(root, pattern, passed, others)]
    unique = dict(paths)  # a match may be inside a folder that also matches
    found = [_found(path, top, by_name) for path, by_name in unique.items()]
    return list(_once(_only_files(found, passed), top, passed)), others


def _files_of_match(
    path: Path, form: str, pattern: str, passed: PassedOver, others: list[str]
) -> Iterator[Path]:
    """Yield the files of what a glob matched; the last part of the glob is a pattern, too."""
    form = "*" if form == "**" else form
    reason = reason_to_pass(path.name, form)
    if path.is_dir() and not reason and leads_above(path):
        reason = "linked to a folder above it"
    if reason:
        passed.add(reason, f"{path.name}/" if path.is_dir() else path.name)
    elif path.is_dir():
        yield from _files_under(path, pattern, passed, others)
    else:
        yield path


def _files_under(root: Path, pattern: str, passed: PassedOver, others: list[str]) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(
            _chosen_files(root, pattern, passed, others),
            key=lambda path: path.relative_to(root).parts,
        )
    elif os.path.lexists(root):
        yield root
    else:
        raise UserError(f"The input {root} does not exist: correct input.path.")


def _chosen_files(
    root: Path, pattern: str, passed: PassedOver, others: list[str]
) -> Iterator[Path]:
    if all((root / name).is_dir() for name in _HUB_CACHE):
        raise UserError(
            f"{root} is a cache of the Hugging Face hub, with files of every revision: give one of "
            f"the folders in {root / 'snapshots'} as input.path."
        )
    for folder, files in files_below(root, pattern, passed):
        if _SPLITS in files:
            splits = _splits(folder)
            raise UserError(
                f"{folder} is a saved dataset of the splits {', '.join(splits)}: give one of these "
                "folders as input.path, or the whole as input.dataset with input.split."
            )
        data = _data_files(folder) if _STATE in files else files
        for name in sorted({*files, *data}):
            shown = (folder / name).relative_to(root).as_posix()
            if name not in data:
                passed.add("beside the files of a saved dataset", shown)
            elif reason := reason_to_pass(name, pattern):
                passed.add(reason, shown)
            elif not matches(name, pattern):
                passed.add("not matched by the pattern", shown)
                others.append(name)
            else:
                yield folder / name


def _found(path: Path, top: Path, by_name: bool) -> Found:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UserError(
            f"The input {path} is a broken link: remove it, or restore its target."
            if path.is_symlink()
            else f"The input {path} is missing: restore it."
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    return Found(path, path.relative_to(top).as_posix(), status.st_size, by_name, status)


def _only_files(found: Iterable[Found], passed: PassedOver) -> Iterator[Found]:
    for file in found:
        if file.status and stat.S_ISREG(file.status.st_mode):
            yield file
        elif file.by_name:
            raise UserError(
                f"The input {file.path} is no file but a pipe or device, which cannot be read "
                "twice: write its contents to a file."
            )
        else:
            passed.add("neither file nor folder", file.name)


def _once(found: Iterable[Found], top: Path, passed: PassedOver) -> Iterator[Found]:
    """Yield each file once, though symbolic links may lead to it as well."""
    listed = list(found)
    keys = [(file.status.st_dev, file.status.st_ino) for file in listed if file.status]
    counts = Counter(keys)
    chosen: dict[str, Found] = {}
    for file, key in zip(listed, keys, strict=True):
        if counts[key] > 1:
            # Hard links to one file differ in their real paths, symbolic links to it do not.
            real = os.path.realpath(str(file.path))
            held = chosen.setdefault(real, file)
            if _is_linked(held, top) and not _is_linked(file, top):
                chosen[real] = file
    kept = {id(file) for file in chosen.values()}
    for file, key in zip(listed, keys, strict=True):
        if counts[key] == 1 or id(file) in kept:
            yield file
        else:
            passed.add("linked to a file read", file.name)


def _is_linked(file: Found, top: Path) -> bool:
    """Tell whether a symbolic link leads from the input to the file."""
    path = top
    for part in Path(file.name).parts:
        path /= part
        if path.is_symlink():
            return True
    return False


def _not_empty(found: Iterable[Found], passed: PassedOver) -> Iterator[Found]:
    for file in found:
        if file.size:
            yield file
        else:
            passed.add("empty", file.name)


def _without_files_about_data(
    found: Sequence[Found], root: Path | str, pattern: str, passed: PassedOver
) -> Iterator[Found]:
    """Yield the files but for those about the data, if they stand beside it or at its top."""
    form = Path(root).name if glob.has_magic(str(root)) else pattern
    about = [
        not file.by_name
        and is_about_data(_last(file), pattern)
        and is_about_data(_last(file), form)
        for file in found
    ]
    folders = {_folder(file) for file, is_about in zip(found, about, strict=True) if not is_about}
    top = 0 if glob.has_magic(str(root)) else 1  # names begin with that of the folder
    for file, is_about in zip(found, about, strict=True):
        at_top = folders and file.name.count("/") == top
        if is_about and (at_top or _folder(file) in folders):
            passed.add("about the data", file.name)
        else:
            yield file


def _last(file: Found) -> str:
    return file.name.rpartition("/")[2]


def _folder(file: Found) -> str:
    return file.name.rpartition("/")[0]


def _nothing_matches(root: Path | str, pattern: str, others: Sequence[str]) -> UserError:
    shown = shown_url(root) if isinstance(root, str) else str(root)
    kinds = ", ".join(list(endings(others))[:_SHOWN_ENDINGS])
    return UserError(
        f"No file name in {shown} matches input.pattern={pattern!r}: there are names ending in "
        f"{kinds}, such as {printable(min(others))}; correct input.pattern."
    )


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
