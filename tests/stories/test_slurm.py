"""The batch script under a stand-in for Slurm: it trains, is preempted, requeues, and gives up."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.stories.conftest import ROOT, environment, status_of
from tests.stories.documentation import commands

LIMIT_S = 300

# One node, whose steps run here. `requeue` leaves a mark instead of starting the job again.
STAND_INS = {
    "scontrol": 'case "$1" in show) echo localhost ;; requeue) echo "$2" >> requeued ;; esac',
    "srun": 'while [[ "$1" == --* ]]; do shift; done; SLURM_NODEID=0 exec "$@"',
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Return a folder laid out like a checkout, with Slurm's commands standing in."""
    for name, body in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    (tmp_path / "ds_configs").symlink_to(ROOT / "ds_configs")
    return tmp_path


def submit(job: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the batch script as a node would."""
    variables = environment()
    variables["PATH"] = f"{job / 'bin'}{os.pathsep}{variables['PATH']}"
    variables |= {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "localhost",
        "STILLHOUSE_RANKS": "2",
        "TMPDIR": str(job),
    }
    # The compiled operator is shared with the other tests, or each would build its own.
    variables["TORCH_EXTENSIONS_DIR"] = os.path.expanduser("~/.cache/torch_extensions")
    return subprocess.run(
        ["bash", "launch/slurm/train.sbatch", *map(str, arguments)],
        cwd=job,
        env=variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.mark.story
def test_preempted_job_is_requeued(job: Path, teacher_recipe: Path) -> None:
    """A preempted job is requeued, and its second attempt finishes."""
    run = job / "runs" / "teacher"
    train = ["runs/teacher", "launch/train_teacher.py", "--config", teacher_recipe]
    first = submit(job, *train, "train.max_minutes=0.00001")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "is preempted at step 1" in first.stdout
    assert (job / "requeued").read_text().split() == [str(os.getpid())]

    second = submit(job, *train)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "is done at step 6" in second.stdout
    assert status_of(run)["state"] == "done"
    assert len((job / "requeued").read_text().split()) == 1, "a finished job was requeued"
    assert not list(run.glob("hostfile*"))

    # The same script again: the run is done, and nothing starts.
    third = submit(job, *train)
    assert third.returncode == 0, third.stdout + third.stderr
    assert "nothing to do" in third.stdout
    assert len((job / "requeued").read_text().split()) == 1


@pytest.mark.story
def test_job_without_progress_is_not_requeued(job: Path, teacher_recipe: Path) -> None:
    """A job that makes no progress is not requeued."""
    arguments = ["runs/teacher", "launch/train_teacher.py", "--config", teacher_recipe]
    refused = submit(job, *arguments, "optim.warm_up=1")
    assert refused.returncode != 0
    assert "did you mean 'optim.warmup_steps'?" in refused.stderr
    assert not (job / "requeued").exists()


def test_cluster_page_submits_existing_scripts() -> None:
    typed = commands((ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"))
    train, prepare = "launch/slurm/train.sbatch", "launch/slurm/prepare.sbatch"
    trained = [arguments[arguments.index(train) + 1 :] for arguments in typed if train in arguments]
    assert [run for run, *_ in trained] == ["runs/teacher", "runs/student"]
    # The array's own command stands within quotes, as $(...), and is one argument of the outer one.
    prepared = [" ".join(arguments) for arguments in typed if prepare in " ".join(arguments)]
    assert [line.rstrip(')"').endswith("--merge") for line in prepared] == [False, True]
    for named in (*(" ".join(arguments) for arguments in trained), *prepared):
        for path in re.findall(r"launch/[\w./]+", named):
            assert (ROOT / path).is_file(), path


def test_batch_script_prints_usage(job: Path) -> None:
    """The batch script prints its usage when arguments are missing."""
    ended = submit(job, "runs/teacher")
    assert ended.returncode == 2
    assert "usage: sbatch" in ended.stderr
