"""The style guide, as far as tools can read it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKS = {
    "lint": ["ruff", "check", "--no-cache"],
    "format": ["ruff", "format", "--check", "--no-cache"],
    "types": ["mypy"],
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_source_passes(check: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *CHECKS[check]], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_source_file_is_longer_than_400_lines() -> None:
    sources = [
        file
        for folder in ("data_prep", "pretrain", "launch", "tests")
        for file in (ROOT / folder).rglob("*.py")
    ]
    assert len(sources) > 10
    assert [file.name for file in sources if len(file.read_text().splitlines()) > 400] == []
