"""Manifests: the contents of a directory, which the next stage verifies before it computes.

A directory handed from one stage to the next is *complete* when its `manifest.json` exists.
The manifest lists every file with its size and sha256, beside the facts of the stage itself.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, NonNegativeInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from data_prep.errors import UserError

MANIFEST = "manifest.json"
_READ_BYTES = 1 << 22


class _FileFacts(TypedDict):
    bytes: NonNegativeInt
    sha256: str


_FILES = TypeAdapter(dict[str, _FileFacts], config=ConfigDict(strict=True))


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of one file, read in pieces of 4 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def fingerprint(facts: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON-like value."""
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically: temporary file, fsync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # still there only if something failed


def describe_files(directory: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return `{name: {"bytes", "sha256"}}` for files below `directory`, in sorted order."""
    return {
        name: {"bytes": (directory / name).stat().st_size, "sha256": file_sha256(directory / name)}
        for name in sorted(names)
    }


def write_manifest(directory: Path, facts: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Describe `names`, write the manifest last, which makes the directory complete; return it."""
    manifest = {**facts, "files": describe_files(directory, names)}
    write_json(directory / MANIFEST, manifest)
    return manifest


def read_manifest(directory: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the manifest of a directory.

    Args:
        directory: the folder that should be complete.
        what: what the directory is, for the message ("corpus", "checkpoint").
        remedy: what to do when it is missing, for the message.

    Raises:
        UserError: when the manifest is missing or is not JSON.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise UserError(f"The {what} {directory} has no {MANIFEST}: {remedy}.")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _FILES.validate_python(manifest["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a manifest ({problem_of(error)}): {remedy}.") from error
    return manifest


def problem_of(error: Exception) -> str:
    """Return what is wrong with a JSON tree, on one line: the key, the value and the rule."""
    if not isinstance(error, ValidationError):
        return repr(error)
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key or 'it'} is {str(first['input'])[:80]!r}: {first['msg']}"


def first_difference(
    expected: Any, found: Any, *, ignore_extra: bool = False, key: str = ""
) -> tuple[str, Any, Any] | None:
    """Return the first difference of two JSON-like trees as (dotted key, expected, found), or None.

    Args:
        expected: one tree.
        found: the other.
        ignore_extra: whether keys that only `found` has are ignored.
        key: of the trees themselves, in front of their keys.
    """
    if not (isinstance(expected, Mapping) and isinstance(found, Mapping)):
        return None if expected == found else (key, expected, found)
    names = [*expected, *([] if ignore_extra else [name for name in found if name not in expected])]
    differences = (
        first_difference(
            expected.get(name),
            found.get(name),
            ignore_extra=ignore_extra,
            key=f"{key}.{name}" if key else str(name),
        )
        for name in names
    )
    return next((difference for difference in differences if difference), None)


def find_damage(directory: Path, manifest: dict[str, Any], hashes: bool) -> str | None:
    """Compare a directory with its manifest and return the first damage found, or None.

    Sizes are always compared; contents only when `hashes` is true, which reads every byte.
    """
    for name, expected in manifest["files"].items():
        path = directory / name
        # Names come from a file: one that leaves the directory is damage, and is not opened.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"the manifest names {name!r}, which is outside the directory"
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
        if hashes and file_sha256(path) != expected["sha256"]:
            return f"the contents of {name} have changed (sha256 differs)"
    return None
