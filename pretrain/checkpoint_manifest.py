"""The manifests of checkpoints: which were committed, and whether every byte is still there.

Reading a checkpoint needs neither DeepSpeed nor a process group, so that a model can be loaded,
published or distilled from wherever a run folder lies.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.manifest import MANIFEST, find_damage


@dataclass(frozen=True)
class FoundCheckpoint:
    """A committed checkpoint whose files are what its manifest says."""

    path: Path
    facts: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps done when it was written."""
        return int(self.facts["step"])

    @property
    def world_size(self) -> int:
        """Number of ranks that wrote it."""
        return int(self.facts["world_size"])


def find_newest(folder: Path) -> FoundCheckpoint | None:
    """Return the newest checkpoint whose every byte verifies, or None when there is none at all.

    A damaged one is passed over with a warning on stderr.

    Raises:
        UserError: when checkpoints exist and all are damaged; a run is never silently restarted.
    """
    committed = [path for path in sorted(folder.glob("step_*"), reverse=True) if is_committed(path)]
    for path in committed:
        damage, facts = _inspect(path)
        if damage is None:
            return FoundCheckpoint(path, facts)
        print(f"warning: checkpoint {path} is damaged ({damage}); trying the one before it.",
              file=sys.stderr)  # fmt: skip
    if committed:
        raise UserError(
            f"All {len(committed)} checkpoints in {folder} are damaged: restore one from a backup, "
            "or remove the run folder to start again."
        )
    return None


def is_committed(path: Path) -> bool:
    """Tell whether a folder has the name of a checkpoint that was saved to its end."""
    return path.is_dir() and path.name.removeprefix("step_").isdigit()


def _inspect(path: Path) -> tuple[str | None, dict[str, Any]]:
    """Return (damage or None, facts) of one checkpoint."""
    try:
        facts = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return find_damage(path, facts, hashes=True), facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read: {error!r}", {}
