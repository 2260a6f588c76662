"""Stories start real processes; what they share is how to start them and what to read after."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.model_fixtures import published_teacher, tiny_shape

__all__ = ["published_teacher", "tiny_shape"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 600
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")

Command = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """Return the variables under which a story's processes run: this interpreter, no GPU."""
    folder = str(Path(sys.executable).parent)
    # A test in this process may have been a run of one rank; what it launches must not be.
    inherited = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    return inherited | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return str(listener.getsockname()[1])


def launch_command(script: str | Path, *arguments: str | Path, ranks: int = 2) -> list[str]:
    """Return the command a user would type to train on `ranks` processes."""
    launcher = shutil.which("deepspeed", path=environment()["PATH"])
    assert launcher, "the deepspeed launcher is not installed beside this interpreter"
    options = ["--quiet", "--num_accelerators", str(ranks), "--master_port", free_port()]
    return [launcher, *options, str(script), *map(str, arguments)]


def run_command(
    command: list[str], code: int = 0, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and fail with its output if it ends with another code."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


@pytest.fixture
def deepspeed() -> Command:
    """Run a script of ours under the real launcher, and fail with its output if it fails."""

    def run(
        script: str | Path, *arguments: str | Path, ranks: int = 2, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        return run_command(launch_command(script, *arguments, ranks=ranks), code)

    return run


@pytest.fixture
def teacher_recipe(tmp_path: Path, tiny_corpus: Path, tiny_tokenizer: Path) -> Path:
    """Return the recipe of a teacher that trains in a second, its run folder in `tmp_path`."""
    recipe = tiny_recipe(tmp_path / "run", tiny_corpus, tiny_tokenizer)
    recipe["model"] = {
        "layers": 2,
        "width": 32,
        "heads": 2,
        "feed_forward": 64,
        "positions": 64,
    }
    path = tmp_path / "teacher.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def tiny_recipe(run: Path, corpus: Path, tokenizer: Path) -> dict[str, Any]:
    """Return the groups that teacher and student recipes share."""
    return {
        "run": {"path": str(run)},
        "corpus": {"path": str(corpus)},
        "tokenizer": {"path": str(tokenizer)},
        "train": {"steps": 6, "batch_rows": 8, "micro_rows": 2, "row_tokens": 64},
        "optim": {"lr": 1e-3, "warmup_steps": 2},
        "validation": {"every_steps": 3, "rows": 8},
        "checkpoint": {"every_steps": 2, "keep": 2},
        "log": {"every_steps": 1},
    }


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def curve(run: Path) -> dict[int, tuple[float, ...]]:
    """Return what a run computed at each step: losses, accuracies and the gradient norm."""
    tags = ("loss/total", "loss/mlm", "loss/nsp", "accuracy/mlm", "optim/grad_norm")
    return {
        line["step"]: tuple(line[tag] for tag in tags)
        for line in metrics_of(run)
        if "loss/total" in line
    }


def status_of(run: Path) -> dict[str, Any]:
    """Return a run's status.json."""
    content: dict[str, Any] = json.loads((run / "status.json").read_text(encoding="utf-8"))
    return content
