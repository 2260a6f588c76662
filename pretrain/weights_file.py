"""Weights on disk: safetensors files, written so that they follow the umask, and read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from data_prep.errors import UserError

_LFS = b"version https://git-lfs"
# The types of numbers that are weights; int8 and the like are quantised, with scales elsewhere.
_FLOATS = ("F64", "F32", "F16", "BF16")


class StoredTensor(NamedTuple):
    """A tensor as the header of its file describes it."""

    file: Path
    name: str  # in the file
    shape: tuple[int, ...]
    dtype: str  # in safetensors' words, such as F32


def write_weights(
    weights: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, readable by those whom the umask lets read any new file.

    safetensors (0.8) writes a temporary file of mode 600 and renames it, so that colleagues could
    not read the weights.
    """
    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(dict(weights), path, metadata=dict(metadata) if metadata else None)
    path.chmod(mode)


def read_headers(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """Return the tensors of safetensors files by name, from the headers alone.

    Raises:
        UserError: for a file that cannot be read.
    """
    found: dict[str, StoredTensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # not a mapping
                    part = file.get_slice(name)
                    found[name] = StoredTensor(
                        path, name, tuple(part.get_shape()), part.get_dtype()
                    )
        except (OSError, SafetensorError) as error:
            _refuse_pointer(path)
            raise UserError(f"The weights {path} cannot be read: {error}.") from error
    return found


def read_tensors(stored: Mapping[str, StoredTensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each key with its tensor, in fp32, one at a time, file by file.

    Raises:
        UserError: for a file that cannot be read, or weights that are quantised.
    """
    for path in dict.fromkeys(each.file for each in stored.values()):
        try:
            with safe_open(path, framework="pt") as file:
                for key, each in stored.items():
                    if each.file == path:
                        _check_dtype(each)
                        yield key, file.get_tensor(each.name).float()
        except (OSError, SafetensorError) as error:
            raise UserError(f"The weights {path} cannot be read: {error}.") from error


def _refuse_pointer(path: Path) -> None:
    """Raise UserError for what a clone without Git LFS leaves in place of a large file."""
    if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(_LFS):
        raise UserError(
            f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` there."
        )


def _check_dtype(stored: StoredTensor) -> None:
    if stored.dtype not in _FLOATS:
        raise UserError(
            f"The weights {stored.file} are quantised ({stored.name} is of type {stored.dtype}): "
            "name the model in fp32, bf16 or fp16 from which they were made."
        )
