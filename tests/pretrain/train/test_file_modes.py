"""What a run and an export write follows the umask: a team's folder is readable by the team."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pretrain.config.run import TeacherRecipe
from pretrain.distributed import Cluster
from pretrain.export.huggingface import publish
from pretrain.model import BertShape
from pretrain.monitoring.logger import RunLog
from pretrain.run_facts import RunFacts
from pretrain.train.checkpoint import Progress, save_checkpoint
from pretrain.train.run_directory import RunDirectory
from tests.run_folders import make_run


@pytest.fixture(params=[0o022, 0o027], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set a umask during a test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def wrong_modes(folder: Path, umask: int) -> dict[str, str]:
    """Return the files and folders whose mode is not that of a new one, with their mode."""
    expected = {path: 0o777 if path.is_dir() else 0o666 for path in (folder, *folder.rglob("*"))}
    modes = {path: path.stat().st_mode & 0o777 for path in expected}
    return {
        str(path.relative_to(folder)): oct(mode)
        for path, mode in modes.items()
        if mode != expected[path] & ~umask
    }


class Engine:
    """Writes a file as DeepSpeed does."""

    def save(self, folder: Path, tag: str, state: dict[str, int]) -> None:
        (folder / tag).mkdir()
        torch.save(state, folder / tag / "rank_0.pt")

    def gather_fp32_weights(self) -> dict[str, torch.Tensor]:
        return {"weight": torch.zeros(3)}


def test_run_files_follow_the_umask(
    umask: int, tmp_path: Path, tiny_tokenizer: Path, alone: Cluster
) -> None:
    """Configuration, tokenizer, status, metrics, TensorBoard and checkpoints, also after a cut."""
    run = RunDirectory(tmp_path / "run")
    tree = {"run": run.path, "corpus": "corpus", "tokenizer": tiny_tokenizer}
    train = {"steps": 4, "batch_rows": 4, "micro_rows": 2}
    recipe = {**{name: {"path": path} for name, path in tree.items()}, "train": train}
    run.begin(TeacherRecipe.model_validate(recipe))
    for resume_step in (0, 1):  # the second log cuts the metrics of the first
        log = RunLog(run.path, resume_step, total_steps=4)
        log.write(resume_step + 1, 8, {"loss/total": 1.0})
        log.close()
    engine, progress = Engine(), Progress(step=2)
    save_checkpoint(run.checkpoints, engine, progress, RunFacts(), alone, keep=1)  # type: ignore[arg-type]
    run.write_status("running", progress, "a checkpoint was saved")
    names = {path.name for path in run.path.rglob("*")}
    assert {"config.yaml", "status.json", "metrics.jsonl", "model.safetensors"} <= names
    assert wrong_modes(run.path, umask) == {}


def test_export_files_follow_the_umask(
    umask: int, tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """A published folder is readable by colleagues, its weights too."""
    make_run(tmp_path / "run", tiny_tokenizer, "student", tiny_shape)
    publish(tmp_path / "run", tmp_path / "export", "apache-2.0", "en")
    assert wrong_modes(tmp_path / "export", umask) == {}
