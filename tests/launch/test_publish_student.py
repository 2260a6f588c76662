"""The publishing command: files that it writes, lists and uploads."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from launch import publish_student
from launch.command_line.errors import run_command
from pretrain.model import BertShape
from tests.run_folders import make_run

Publish = Callable[..., str]


class FakeHub:
    """Stands for the model hub, and records its calls."""

    calls: list[tuple[str, Any]] = []  # noqa: RUF012  # one hub for the whole test

    def create_repo(self, repository: str, exist_ok: bool) -> None:
        self.calls.append(("create", repository))

    def upload_folder(self, repo_id: str, folder_path: Path) -> None:
        self.calls.append(("upload", (repo_id, sorted(p.name for p in folder_path.iterdir()))))


@pytest.fixture
def run_publish(
    tmp_path: Path,
    tiny_tokenizer: Path,
    tiny_shape: BertShape,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Publish:
    """Publish a student's run folder with some options, and return what was printed."""
    make_run(tmp_path / "run", tiny_tokenizer, "student", tiny_shape)
    FakeHub.calls.clear()
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)

    def run(*options: str) -> str:
        words = ["publish", str(tmp_path / "run"), str(tmp_path / "export"), *options]
        monkeypatch.setattr(sys, "argv", words)
        run_command(publish_student.main)
        return capsys.readouterr().out

    return run


def test_publish_is_idempotent(run_publish: Publish) -> None:
    """The first call lists its files; the second finds the export up to date."""
    first = run_publish()
    assert "export is published" in first
    for name in ("model.safetensors", "config.json", "tokenizer.json", "README.md"):
        assert name in first
    assert "export is up to date" in run_publish()
    assert "export is published" in run_publish("--license", "mit"), "the card must follow"
    assert not FakeHub.calls


def test_dry_run_sends_nothing(run_publish: Publish) -> None:
    """--dry-run lists the files and uploads nothing."""
    printed = run_publish("--push", "org/name", "--dry-run")
    assert "would go to the model repository org/name; nothing was sent" in printed
    assert not FakeHub.calls


def test_push_uploads_folder(run_publish: Publish, tmp_path: Path) -> None:
    """--push uploads the exported files and nothing else."""
    run_publish("--push", "org/name")
    names = sorted(path.name for path in (tmp_path / "export").iterdir())
    assert FakeHub.calls == [("create", "org/name"), ("upload", ("org/name", names))]


def test_dry_run_requires_push(run_publish: Publish, capsys: pytest.CaptureFixture[str]) -> None:
    """--dry-run without --push is refused."""
    with pytest.raises(SystemExit) as ended:
        run_publish("--dry-run")
    assert ended.value.code == 2
    assert "give --push ORG/NAME as well" in capsys.readouterr().err


def test_damaged_export_is_rewritten(run_publish: Publish, tmp_path: Path) -> None:
    """An export that lacks a file is written anew."""
    run_publish()
    (tmp_path / "export" / "vocab.txt").unlink()
    assert "export is published" in run_publish()
    assert (tmp_path / "export" / "vocab.txt").is_file()
