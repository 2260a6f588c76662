"""The batch script under a stand-in for Slurm: it trains, is preempted, requeues, and gives up."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.stories.conftest import status_of
from tests.stories.documentation import PAGES, blocks
from tests.stories.slurm import job_output, job_states, lay_out_checkout, requeued_jobs
from tests.stories.test_documentation import SMALL, SMALL_MODEL, write_text

LIMIT_S = 300
JOB = "4711"
# Makes documented jobs small enough for one node of two cores: sizes, and overrides of recipes.
TOY_SIZES = {
    "--nodes 4": "--nodes 1",
    "--nodes 2": "--nodes 1",
    "--gpus-per-node 8": "--gpus-per-node 1",
    "--array=0-31": "--array=0-1",
}
TOY_RECIPES = {
    "corpus_en": ["tokenizer.vocab_size=400", "corpus.validation_share=0.2"],
    "teacher_base": [*SMALL, *SMALL_MODEL],
    "student_6x768": [*SMALL, "student.init=[1]"],
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Return the variables of a shell that has Slurm's stand-ins, for the folder of the test."""
    return lay_out_checkout(tmp_path)


def shell(script: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run lines of bash in a folder; the first that fails ends them."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def submit(slurm: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the batch script as a node would."""
    variables = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NODELIST": "localhost", "STILLHOUSE_RANKS": "2"}
    words = ["bash", "launch/slurm/train.sbatch", *map(str, arguments)]
    return subprocess.run(
        words,
        cwd=slurm["STAND_IN_SLURM"],
        env=slurm | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.mark.story
def test_preempted_job_is_requeued(
    slurm: dict[str, str], tmp_path: Path, teacher_recipe: Path
) -> None:
    """A preempted job is requeued, and its second attempt finishes."""
    run = tmp_path / "runs" / "teacher"
    train = ["runs/teacher", "launch/train_teacher.py", "--config", teacher_recipe]
    first = submit(slurm, *train, "train.max_minutes=0.00001")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "is preempted at step 1" in first.stdout
    assert requeued_jobs(tmp_path) == [JOB]

    second = submit(slurm, *train)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "is done at step 6" in second.stdout
    assert status_of(run)["state"] == "done"
    assert len(requeued_jobs(tmp_path)) == 1, "a finished job was requeued"
    assert not list(run.glob("hostfile*"))

    # The same script again: the run is done, and nothing starts.
    third = submit(slurm, *train)
    assert third.returncode == 0, third.stdout + third.stderr
    assert "nothing to do" in third.stdout
    assert len(requeued_jobs(tmp_path)) == 1


@pytest.mark.story
def test_job_without_progress_is_not_requeued(
    slurm: dict[str, str], tmp_path: Path, teacher_recipe: Path
) -> None:
    """A job that makes no progress is not requeued."""
    arguments = ["runs/teacher", "launch/train_teacher.py", "--config", teacher_recipe]
    refused = submit(slurm, *arguments, "optim.warm_up=1")
    assert refused.returncode != 0
    assert "did you mean 'optim.warmup_steps'?" in refused.stderr
    assert not requeued_jobs(tmp_path)


def cluster_blocks() -> list[str]:
    """Return the code blocks of all pages that submit jobs, none twice."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    found = [each for text in texts for each in blocks(text, "bash") if "sbatch" in each]
    # A command that a block repeats is run in the last of them.
    return [text for n, text in enumerate(found) if not any(text in o for o in found[n + 1 :])]


def toy(script: str) -> str:
    """Return documented lines at toy size; each replacement must be one."""
    for size, small in TOY_SIZES.items():
        script = script.replace(size, small)
    for name, overrides in TOY_RECIPES.items():
        recipe = f"launch/recipes/{name}.yaml"
        script = script.replace(recipe, " ".join([recipe, *overrides]))
    return script


@pytest.mark.story
def test_documented_jobs_run(slurm: dict[str, str], tmp_path: Path) -> None:
    """What the pages tell a reader to submit is accepted, and runs to its end."""
    write_text(tmp_path / "data" / "text")
    scripts = cluster_blocks()
    submitted = sum(len(re.findall(r"(?<![.\w])sbatch ", script)) for script in scripts)
    for script in scripts:
        ended = shell(toy(script), tmp_path, slurm)
        assert ended.returncode == 0, ended.stdout + ended.stderr + job_output(tmp_path)
    assert len(job_states(tmp_path)) == submitted == 4
    assert set(job_states(tmp_path)) == {"COMPLETED"}, job_output(tmp_path)
    assert {path.name for path in tmp_path.glob("slurm-1*.out")} == {
        "slurm-1_0.out",
        "slurm-1_1.out",
    }
    assert (tmp_path / "runs" / "corpus" / "manifest.json").is_file()
    for run in ("teacher", "student"):
        assert status_of(tmp_path / "runs" / run)["state"] == "done"


def test_batch_script_prints_usage(slurm: dict[str, str]) -> None:
    """The batch script prints its usage when arguments are missing."""
    ended = submit(slurm, "runs/teacher")
    assert ended.returncode == 2
    assert "usage: sbatch" in ended.stderr


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("sbatch --node 1 --frobnicate job.sh", "option --frobnicate not recognized"),
        ("sbatch --nodes four job.sh", "Invalid --nodes specification: four"),
        ("sbatch --time 24h job.sh", "Invalid --time specification: 24h"),
        ("sbatch --array=0..3 job.sh", "Invalid --array specification: 0..3"),
        ("sbatch --dependency=afterok:7 job.sh", "there is no job 7"),
        ("sbatch --dependency=afterok: job.sh", "Invalid --dependency specification"),
        ("sbatch --nodes 1", "Batch script is missing"),
        ("sbatch absent.sh", "Unable to open file absent.sh"),
        ("sbatch --wrap 'echo hello' job.sh", "not permitted with --wrap"),
        ("sbatch wrong.sh", "option --frobnicate not recognized"),
    ],
)
def test_stand_in_refuses_what_sbatch_refuses(
    line: str, refusal: str, slurm: dict[str, str], tmp_path: Path
) -> None:
    """The stand-in accepts no option, value or script that sbatch does not."""
    (tmp_path / "job.sh").write_text("#!/bin/bash\ntouch ran\n", encoding="utf-8")
    (tmp_path / "wrong.sh").write_text("#!/bin/bash\n#SBATCH --frobnicate\n", encoding="utf-8")
    ended = shell(line, tmp_path, slurm)
    assert ended.returncode == 1 and refusal in ended.stderr
    assert not (tmp_path / "ran").exists()


def test_stand_in_runs_jobs(slurm: dict[str, str], tmp_path: Path) -> None:
    """Arrays run in turn, arguments reach the script, and a failed job stops what depends on it."""
    script = """#!/bin/bash
#SBATCH --cpus-per-task 2
#SBATCH --job-name directive
echo "$SLURM_JOB_NAME $SLURM_CPUS_PER_TASK ${SLURM_ARRAY_TASK_ID:-alone} $*"
[[ "$*" != fail ]]
"""
    (tmp_path / "job.sh").write_text(script, encoding="utf-8")
    lines = """
array="$(sbatch --parsable -J mine --array=1-5:4%2 job.sh --time 3)"
sbatch --dependency="afterok:$array" job.sh fail
sbatch --dependency=afterok:2 --kill-on-invalid-dep=yes job.sh
sbatch --dependency=afterany:2 --wrap 'echo "$SLURM_JOB_ID"'
"""
    ended = shell(lines, tmp_path, slurm)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [f"Submitted batch job {number}" for number in (2, 3, 4)]
    assert job_states(tmp_path) == ["COMPLETED", "FAILED", "CANCELLED", "COMPLETED"]
    printed = {p.name: p.read_text("utf-8").strip() for p in tmp_path.glob("slurm-*.out")}
    assert printed == {
        "slurm-1_1.out": "mine 2 1 --time 3",
        "slurm-1_5.out": "mine 2 5 --time 3",
        "slurm-2.out": "directive 2 alone fail",
        "slurm-4.out": "4",
    }
