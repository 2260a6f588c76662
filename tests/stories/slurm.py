"""Stand-ins for the commands of Slurm, on a cluster of one node that is this machine."""

import json
import os
import sys
from pathlib import Path

from tests.stories.conftest import ROOT, environment

_SBATCH = Path(__file__).with_name("stand_in_sbatch.py")
# Steps run here. `requeue` leaves a mark instead of starting the job again.
_COMMANDS = {
    "sbatch": f'exec "{sys.executable}" "{_SBATCH}" "$@"',
    "scontrol": """case "$*" in
    "show hostnames localhost") echo localhost ;;
    "requeue "*) echo "$2" >> "$STAND_IN_SLURM/requeued" ;;
    *) echo "scontrol: invalid keyword: $*" >&2; exit 1 ;;
esac""",
    "srun": """while [[ "$1" == -* ]]; do
    case "$1" in
        --kill-on-bad-exit=[01] | --wait=[0-9]*) shift ;;
        *) echo "srun: unrecognized option '$1'" >&2; exit 1 ;;
    esac
done
SLURM_NODEID=0 SLURM_PROCID=0 exec "$@\"""",
}


def lay_out_checkout(folder: Path) -> dict[str, str]:
    """Lay a folder out like a checkout with Slurm's commands; return the variables to use them."""
    binaries = folder / "bin"
    binaries.mkdir()
    for name, body in _COMMANDS.items():
        path = binaries / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
    for name in ("launch", "ds_configs"):
        (folder / name).symlink_to(ROOT / name)
    inherited = {k: v for k, v in environment().items() if not k.startswith(("SLURM_", "SBATCH_"))}
    return inherited | {
        "PATH": f"{binaries}{os.pathsep}{inherited['PATH']}",
        "STAND_IN_SLURM": str(folder),
        "TMPDIR": str(folder),
        # The compiled operator is shared with the other tests, or each would build its own.
        "TORCH_EXTENSIONS_DIR": os.path.expanduser("~/.cache/torch_extensions"),
    }


def requeued_jobs(folder: Path) -> list[str]:
    """Return the jobs that were requeued, in order."""
    path = folder / "requeued"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def job_states(folder: Path) -> list[str]:
    """Return how the jobs that were submitted ended, in order."""
    states: dict[str, str] = json.loads((folder / "jobs").read_text(encoding="utf-8"))
    return list(states.values())


def job_output(folder: Path) -> str:
    """Return what all jobs printed."""
    paths = sorted(folder.glob("slurm-*.out"))
    return "\n".join(f"{path.name}:\n{path.read_text(encoding='utf-8')}" for path in paths)
