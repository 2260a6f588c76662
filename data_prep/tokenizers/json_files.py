"""The JSON files of a tokenizer folder, written by many tools: read, or refused by name."""

import json
from pathlib import Path
from typing import Any

from data_prep.errors import UserError

_LFS_POINTER = b"version https://git-lfs.github.com/"


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark; line ends are kept.

    Raises:
        UserError: naming the file and the line of the first byte that is not UTF-8, and for a
            pointer of Git LFS.
    """
    content = path.read_bytes()
    if content.startswith(_LFS_POINTER):
        raise UserError(
            f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` there."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8: line {line} has the byte {content[error.start]:#04x}; convert "
            "it, as in `iconv -f latin1 -t utf-8`."
        ) from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        UserError: naming the file, when it is not UTF-8, not JSON, or not an object.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON ({error}): fetch the file again, it may be cut off."
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a JSON {_kind(content)} instead of an object: fetch the file again."
        )
    return content


def _kind(content: Any) -> str:
    return {list: "list", str: "string", type(None): "null"}.get(type(content), "number")
