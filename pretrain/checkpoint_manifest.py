"""The manifests of checkpoints: which were committed, and whether their files are intact.

Reading a checkpoint needs neither DeepSpeed nor a process group.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.manifest import MANIFEST, find_damage
from pretrain.run_facts import RunFacts


@dataclass(frozen=True)
class FoundCheckpoint:
    """A committed checkpoint whose files verify."""

    path: Path
    facts: RunFacts
    files: Mapping[str, Mapping[str, Any]]  # size and sha256, by name


def find_newest(folder: Path) -> FoundCheckpoint | None:
    """Return the newest checkpoint whose every byte verifies, or None when there is none at all.

    A damaged one is passed over with a warning on stderr.

    Raises:
        UserError: when checkpoints exist and all are damaged; a run is never silently restarted.
    """
    committed = [path for path in sorted(folder.glob("step_*"), reverse=True) if is_committed(path)]
    for path in committed:
        found = _inspect(path)
        if isinstance(found, FoundCheckpoint):
            return found
        print(f"warning: checkpoint {path} is damaged ({found}); trying the one before it.",
              file=sys.stderr)  # fmt: skip
    if committed:
        raise UserError(
            f"All {len(committed)} checkpoints in {folder} are damaged: restore one from a backup, "
            "or remove the run folder to start again."
        )
    return None


def is_committed(path: Path) -> bool:
    """Return whether a folder has the name of a complete checkpoint."""
    return path.is_dir() and path.name.removeprefix("step_").isdigit()


def _inspect(path: Path) -> FoundCheckpoint | str:
    """Return a checkpoint whose files verify, or else the damage found."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        damage = find_damage(path, manifest, hashes=True)
        return damage or FoundCheckpoint(path, RunFacts.from_dict(manifest), manifest["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read: {error!r}"
