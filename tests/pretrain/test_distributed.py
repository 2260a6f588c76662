"""Rank and world size from launcher variables, and what rank 0 broadcasts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from data_prep.errors import UserError
from pretrain.distributed import Cluster, bind_cores, gpu_of, refuse_ranks, restart_count

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run without the variables of any launcher, and without those that a test sets."""
    before = dict(os.environ)
    for name in (*LAUNCHER, *(name for name in before if name.startswith("SLURM_"))):
        monkeypatch.delenv(name, raising=False)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


def test_unlaunched_process_is_one_rank() -> None:
    """A process without launcher variables is a run of one rank."""
    cluster = Cluster.join()
    assert (cluster.rank, cluster.world_size, cluster.is_main) == (0, 1, True)
    assert cluster.sum([3, 1 << 40]) == [3, 1 << 40]
    cluster.leave()


def test_unexpected_world_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number of ranks than expected is refused."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"expects 4 rank\(s\), but the launcher started 3"):
        Cluster.join(expected_world_size=4)


def test_srun_tasks_are_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables of `srun` with one task a rank become those of torch."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$3" = "node[7-8]" ] && printf "node7\\nnode8\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name, value in {
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NODELIST": "node[7-8]",
        "SLURM_JOB_ID": "123456",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match="started 8"
    ):  # checked before the process group is initialised
        Cluster.join(expected_world_size=4)
    translated = {name: os.environ[name] for name in LAUNCHER if name in os.environ}
    assert translated == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "node7",
        "MASTER_PORT": str(20000 + 123456 % 20000),
    }


def test_launcher_precedes_slurm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The launcher's variables take precedence over those of SLURM."""
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("SLURM_PROCID", "3")):
        monkeypatch.setenv(name, value)
    cluster = Cluster.join()
    assert cluster.rank == 0
    cluster.leave()


def test_error_on_rank_0_is_raised() -> None:
    """An error on rank 0 reaches the caller unchanged."""
    cluster = Cluster.join()

    def refuse() -> None:
        raise UserError("the corpus is gone")

    def crash() -> None:
        raise KeyError("bug")

    with pytest.raises(UserError, match="the corpus is gone"):
        cluster.on_main(refuse)
    with pytest.raises(KeyError, match="bug"):
        cluster.on_main(crash)
    assert cluster.on_main(lambda: {"answer": 42}) == {"answer": 42}
    with pytest.raises(UserError, match=r"^the corpus is gone$"):
        cluster.on_all(refuse)
    cluster.leave()


def test_failure_on_one_rank_reaches_all(tmp_path: Path) -> None:
    """Where one rank cannot read what rank 0 located, all raise one sentence, and none waits."""
    mp.spawn(fail_on_rank_1, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    refused, crashed, done = zip(
        *[(tmp_path / f"rank_{rank}").read_text().split("|") for rank in range(2)], strict=True
    )
    sentence = (
        "model is not there: fetch it (on rank 1, but not on rank 0): let all nodes see the same "
        "files, and the same HF_HOME for models of the hub."
    )
    assert refused == (sentence, sentence)
    assert crashed == ("RuntimeError(\"rank 1 failed: KeyError('bug')\")", "KeyError('bug')")
    assert done == ("0", "1")


def fail_on_rank_1(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    cluster = Cluster(rank, rank, 2)

    def read(error: Exception | None) -> int:
        if rank == 1 and error is not None:
            raise error
        return rank

    with pytest.raises(UserError) as refused:
        cluster.on_all(lambda: read(UserError("model is not there: fetch it.")))
    with pytest.raises((KeyError, RuntimeError)) as crashed:
        cluster.on_all(lambda: read(KeyError("bug")))
    done = cluster.on_all(lambda: read(None))
    Path(folder, f"rank_{rank}").write_text(f"{refused.value}|{crashed.value!r}|{done}")
    cluster.leave()


def test_each_rank_has_a_gpu() -> None:
    """A rank computes on a GPU of its own, or is refused."""
    assert [gpu_of(rank, 4) for rank in range(4)] == [0, 1, 2, 3]
    assert gpu_of(3, 1) == 0  # srun shows each task one GPU
    with pytest.raises(UserError, match="Rank 4 of this machine has no GPU, for there are 4"):
        gpu_of(4, 4)


def test_ranks_bind_own_cores() -> None:
    """Ranks of one machine are bound to cores of their own."""
    # In processes of their own, because the binding cannot be undone for threads that exist.
    program = (
        "import os, sys, torch; from pretrain.distributed import bind_cores;"
        "bind_cores(int(sys.argv[1]), 2);"
        "print(*sorted(os.sched_getaffinity(0)), '|', torch.get_num_threads())"
    )
    if len(os.sched_getaffinity(0)) < 2:
        bind_cores(0, 2)  # fewer cores than ranks: nothing is bound
        return
    sets = []
    for rank in "01":
        printed = subprocess.run(
            [sys.executable, "-c", program, rank], capture_output=True, text=True, check=True
        ).stdout
        cores, threads = printed.split("|")
        assert len(cores.split()) == int(threads)
        sets.append(set(cores.split()))
    assert not sets[0] & sets[1]


def test_restart_count_is_slurms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The restart count is that of SLURM, and 0 elsewhere."""
    assert restart_count() == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert restart_count() == 3


def test_single_process_commands_refuse_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command that starts ranks itself is refused when it runs as several."""
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    refuse_ranks("it starts its own")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(UserError, match="it starts its own, but it runs as 8 ranks"):
        refuse_ranks("it starts its own")
    monkeypatch.setenv("WORLD_SIZE", "1")  # a launcher's variable takes precedence
    refuse_ranks("it starts its own")
