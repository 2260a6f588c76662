"""The last check of an export: a fresh process that uses it as a colleague would."""

import os
import subprocess
import sys
from pathlib import Path

from data_prep.errors import UserError

SCRIPT = Path(__file__).with_name("plain_load.py")
_QUIET = {
    # A folder is checked, not what the hub has under its name.
    "HF_HUB_OFFLINE": "1",
    # The logits are compared on the CPU too, and a GPU may be busy with a run.
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
}


def check_in_fresh_process(folder: Path, name: str) -> None:
    """Refuse a folder that plain transformers cannot use in a process of its own.

    Args:
        folder: complete but for `stillhouse.json`.
        name: what the model card calls it.

    Raises:
        UserError: naming the class of transformers, or the example, that fails.
    """
    # `-P` keeps the folder of the script, and so this project, off the path of the imports.
    ended = subprocess.run(
        [sys.executable, "-P", str(SCRIPT), str(folder.resolve()), name],
        env=os.environ | _QUIET,
        cwd=folder.parent,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise UserError(
            f"Plain transformers cannot use the export in a fresh process ({_reason(ended)}), so "
            "it was not published: report this with config.yaml."
        )


def _reason(ended: subprocess.CompletedProcess[str]) -> str:
    printed = (ended.stdout.strip() or ended.stderr.strip()).splitlines()
    if ended.returncode == 1 and printed:
        return printed[-1]
    return f"it ended with code {ended.returncode}" + (f": {printed[-1]}" if printed else "")
