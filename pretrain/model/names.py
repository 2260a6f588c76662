"""What a model is called: by its folder, and on the model hub where that is known."""

import json
import re
from itertools import pairwise
from pathlib import Path

# huggingface_hub keeps `ORG/NAME` in `models--ORG--NAME/snapshots/REVISION`.
_CACHED = re.compile(r"models--(.+)")


def known_hub_name(folder: Path) -> str:
    """Return the name on the model hub of a downloaded or a pushed model; "" if it is not known."""
    parts = folder.absolute().parts
    for name, below in pairwise(parts):
        if below == "snapshots" and (found := _CACHED.fullmatch(name)):
            return found[1].replace("--", "/")
    try:
        facts = json.loads((folder / "stillhouse.json").read_text(encoding="utf-8"))
        return str(facts.get("repository") or "")
    # Most models were never pushed by this project.
    except (OSError, ValueError, AttributeError):
        return ""


def model_name(folder: Path) -> str:
    """Return what a model is called in text: its name on the hub, else that of its folder."""
    return known_hub_name(folder) or folder.absolute().name
