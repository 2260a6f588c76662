"""Models of the Hugging Face hub by name: from its cache, or downloaded into it.

Only files of fixed kinds are fetched, none of which runs code: descriptions and tokenizers first,
weights once the description is one that can be used.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.errors import UserError

DESCRIPTION = ("*.json", "*.txt")
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_FOLDERS = ("*/*",)  # copies in other formats, and checkpoints of the training
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
# A mistyped path of a run must not find the repository of somebody who took such a name.
_LOCAL = frozenset({"runs", "export", "exports", "data", "models", "checkpoints", "corpus"})


def hub_name(path: Path) -> str | None:
    """Return the name on the hub that a path means, or None for a path of this machine.

    A name has one or two parts, and neither it nor its first part exists here.
    """
    first = Path(path.parts[0]) if path.parts else path
    if path.exists() or (len(path.parts) > 1 and first.exists()) or first.name in _LOCAL:
        return None
    return str(path) if _NAME.fullmatch(str(path)) else None


def fetch(name: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a repository in the hub's cache, with the files of these patterns.

    Raises:
        UserError: naming the reason: the hub is switched off or unreachable and the files are not
            in its cache, there is no such repository, or it needs permission.
    """
    from huggingface_hub import constants, errors, snapshot_download

    # The base of the hub's own errors is that of the HTTP library, which differs by version.
    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        return Path(
            snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=list(_FOLDERS))
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name} is gated on the hub: accept its conditions on its page there, and log in with "
            "`hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"There is no folder {name}, and no repository of this name on the hub: correct it, or "
            "log in with `hf auth login` if it is a private one."
        ) from error
    except errors.HFValidationError as error:
        raise UserError(
            f"There is no folder {name}, and it is no name of the hub either: correct the path."
        ) from error
    except (errors.LocalEntryNotFoundError, http_error) as error:
        raise UserError(
            f"There is no folder {name}, it is not in the hub's cache {constants.HF_HUB_CACHE}, "
            f"and the hub {_why_not(error, constants)}: correct the path, or download it where the "
            f"hub can be reached with `hf download {name}`."
        ) from error


def find_cached(name: str) -> Path | None:
    """Return the folder of a repository in the hub's cache, or None; nothing is downloaded."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None


def _why_not(error: BaseException, constants: Any) -> str:
    if constants.HF_HUB_OFFLINE:
        return "is switched off (HF_HUB_OFFLINE)"
    return f"cannot be reached ({type(error.__cause__ or error).__name__})"
