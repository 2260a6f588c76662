"""Weights on disk: safetensors files that follow the umask."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file


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
