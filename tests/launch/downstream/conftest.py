"""Fine-tuning as it is typed, in this process."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch import finetune

Finetune = Callable[..., dict[str, Any]]


@pytest.fixture
def run_finetune(
    published_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Finetune:
    """Return a function that fine-tunes the tiny teacher and returns results.json."""

    def run(*switches: str, out: str = "out", model: Path = published_teacher) -> dict[str, Any]:
        words = ["finetune.py", "--model", str(model), "--out", str(tmp_path / out), *switches]
        monkeypatch.setattr(sys, "argv", words)
        finetune.main()
        content = (tmp_path / out / "results.json").read_text(encoding="utf-8")
        return dict(json.loads(content))

    return run
