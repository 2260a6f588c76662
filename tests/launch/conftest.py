"""Fixtures of models, and of commands that must be refused, for tests of entry points."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

# First, because it chooses the interpreter of Triton before Triton is imported.
from tests.model_fixtures import in_one_process, published_teacher, tiny_shape  # isort: skip

from launch.command_line.errors import run_command

__all__ = ["in_one_process", "published_teacher", "tiny_shape"]

Refuse = Callable[..., str]


@pytest.fixture
def recipe(tmp_path: Path, tiny_corpus: Path, tiny_tokenizer: Path) -> Path:
    """Write a teacher recipe that would train."""
    tree = {
        "run": {"path": str(tmp_path / "run")},
        "corpus": {"path": str(tiny_corpus)},
        "tokenizer": {"path": str(tiny_tokenizer)},
        "model": {"layers": 2, "width": 32, "heads": 2, "feed_forward": 64, "positions": 64},
        "train": {"steps": 4, "batch_rows": 8, "micro_rows": 2, "row_tokens": 64},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.fixture
def student_recipe(tmp_path: Path, recipe: Path, published_teacher: Path) -> Path:
    """Write a student recipe that would train."""
    tree = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    del tree["model"]
    tree["teacher"] = {"path": str(published_teacher)}
    path = tmp_path / "student.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.fixture
def refuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Refuse:
    """Run a command that must be refused, and return its sentence."""

    def run(script: ModuleType, recipe: Path, *overrides: str, keeps_run: bool = False) -> str:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "argv", ["script", "--config", str(recipe), *overrides])
        with pytest.raises(SystemExit) as ended:
            run_command(script.main)
        assert ended.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        # An epoch index that was built before the refusal has logged its dated line.
        printed = "\n".join(line for line in lines if " index of epoch " not in line).strip()
        sentence = printed.removeprefix("error: ")
        assert printed != sentence
        assert "\n" not in sentence, "one sentence, on one line"
        assert "Traceback" not in sentence
        assert keeps_run or not (tmp_path / "run").exists(), "something was left behind"
        assert not torch.distributed.is_initialized()
        return sentence

    return run
