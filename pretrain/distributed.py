"""The processes of a run: rank, world size, device, and collectives on small values.

This is the only file that reads launcher variables, those of SLURM included. Ranks are started by
the DeepSpeed launcher (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_*) or by `srun` with one task per GPU
(SLURM_*); without either, a run has one process.
"""

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from data_prep.errors import UserError

# Long enough for rank 0 to build an epoch index or convert a checkpoint while the others wait.
_TIMEOUT = timedelta(minutes=60)

Result = TypeVar("Result")


class Cluster:
    """The process group of a run, with one device per rank.

    Tensors on the CPU are reduced by gloo and tensors on the GPU by NCCL, so that small values
    (counts, stop flags) are summed without a device-to-host synchronisation.
    """

    def __init__(self, rank: int, local_rank: int, world_size: int) -> None:
        self.rank = rank
        self.local_rank = local_rank
        self.world_size = world_size
        self.device = torch.device("cpu")
        # DeepSpeed reads this variable, and model and engine must be on one device.
        if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
            self.device = torch.device("cuda", gpu_of(local_rank, torch.cuda.device_count()))

    @classmethod
    def join(cls, expected_world_size: int | None = None) -> "Cluster":
        """Initialise the process group (all ranks call this once) and return it.

        Raises:
            UserError: when the launcher started another number of ranks than expected.
        """
        _translate_slurm()
        for name, alone in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
            os.environ.setdefault(name, alone)
        world_size = int(os.environ["WORLD_SIZE"])
        if expected_world_size not in (None, world_size):
            raise UserError(
                f"run.world_size expects {expected_world_size} rank(s), but the launcher started "
                f"{world_size}: change the launch command or run.world_size."
            )
        cluster = cls(int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), world_size)
        if cluster.device.type == "cpu":
            # LOCAL_SIZE is the DeepSpeed launcher's variable for the ranks on this machine.
            bind_cores(cluster.local_rank, int(os.environ.get("LOCAL_SIZE", "1")))
        cluster._initialise_group()
        return cluster

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes what is written once."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for every rank; a comment at the call names the race that this prevents."""
        # An all-reduce on the CPU: `dist.barrier` would pick the GPU and synchronise it.
        dist.all_reduce(torch.zeros(1))

    def sum(self, numbers: list[int]) -> list[int]:
        """Return the element-wise sum over all ranks, exact up to 2^63."""
        tensor = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(tensor)
        return [int(number) for number in tensor]

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks in place, on its own device."""
        dist.all_reduce(tensor)
        return tensor

    def on_main(self, work: Callable[[], Result]) -> Result:
        """Run a function on rank 0 alone; every rank returns its result, or raises its error.

        The others wait meanwhile, so that none reads what rank 0 is still writing or checking.
        """
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        # An exception may hold what cannot be pickled; the others need its type and message.
        received = [outcome[0], _sendable(outcome[1], self.rank)]
        dist.broadcast_object_list(received, src=0, device=torch.device("cpu"))
        failure = outcome[1] if self.is_main else received[1]
        if failure is not None:
            raise failure
        result: Result = received[0]
        return result

    def on_all(self, work: Callable[[], Result]) -> Result:
        """Run a function on every rank, such as one that reads files; if one fails, all raise.

        Otherwise the ranks that did not fail would wait in their next collective for the others.

        Raises:
            UserError: that of the first rank that failed, named in it unless it is rank 0.
        """
        result: Result | None = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        failures: list[Any] = [None] * self.world_size
        # Waits for the slowest rank, so that none goes on before all have succeeded.
        dist.all_gather_object(failures, _sendable(failure, self.rank))
        rank = next((rank for rank, error in enumerate(failures) if error is not None), None)
        if failure is not None and not isinstance(failure, UserError):
            raise failure
        if rank is not None:
            raise _of_rank(rank, failures[rank]) from failure
        return result  # type: ignore[return-value]  # without a failure it is that of `work`

    def leave(self) -> None:
        """Destroy the process group; all ranks call this last."""
        dist.destroy_process_group()

    def _initialise_group(self) -> None:
        if dist.is_initialized():
            return
        backend = "gloo"
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            backend = "cpu:gloo,cuda:nccl"
        if self.world_size == 1 and "MASTER_ADDR" not in os.environ:
            alone = dist.HashStore()  # type: ignore[attr-defined]  # exported, but not in the stubs
            dist.init_process_group(backend, store=alone, rank=0, world_size=1)
        else:
            dist.init_process_group(backend, timeout=_TIMEOUT)


def _sendable(error: Exception | None, rank: int) -> Exception | None:
    if error is None or isinstance(error, UserError):
        return error
    return RuntimeError(f"rank {rank} failed: {error!r}")


def _of_rank(rank: int, error: Exception) -> Exception:
    """Return the error of the first rank that failed, as it is raised on all."""
    if rank == 0 or not isinstance(error, UserError):
        return error
    return UserError(
        f"{str(error).removesuffix('.')} (on rank {rank}, but not on rank 0): let all nodes see "
        "the same files, and the same HF_HOME for models of the hub."
    )


def gpu_of(local_rank: int, gpus: int) -> int:
    """Return the number of the GPU that a rank computes on.

    Raises:
        UserError: when more ranks were started on this machine than it has GPUs.
    """
    if gpus == 1:
        # Under `srun --gpus-per-task 1` each rank sees its own GPU alone, as number 0.
        return 0
    if local_rank >= gpus:
        raise UserError(
            f"Rank {local_rank} of this machine has no GPU, for there are {gpus}: start {gpus} "
            "ranks on each machine."
        )
    return local_rank


def bind_cores(local_rank: int, local_size: int) -> None:
    """Bind each CPU rank of this machine to cores of its own, with as many threads.

    Unbound, the ranks start a thread on every core, and the scheduler was seen to keep two of them
    on one core for minutes. With fewer cores than ranks nothing is bound.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // local_size
    if local_size > 1 and share:
        os.sched_setaffinity(0, cores[local_rank * share : (local_rank + 1) * share])
        torch.set_num_threads(share)


def restart_count() -> int:
    """Return how often SLURM has requeued this job (0 elsewhere)."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def refuse_ranks(why: str) -> None:
    """Refuse a command that must not be started as several ranks.

    Raises:
        UserError: when a launcher, or `srun` with several tasks, has started this process.
    """
    ranks = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if ranks != "1":
        raise UserError(f"{why}, but it runs as {ranks} ranks: start it once, with python alone.")


def _translate_slurm() -> None:
    """Set the variables that torch expects from those of `srun`; the launcher's take precedence."""
    if "RANK" in os.environ or "SLURM_PROCID" not in os.environ:
        return
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    nodes = os.environ["SLURM_STEP_NODELIST"]
    names = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True
    )
    os.environ.setdefault("MASTER_ADDR", names.stdout.split()[0])
    # Jobs that share a node must not share a port: derive it from the job's number.
    os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ["SLURM_JOB_ID"]) % 20000))
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_STEP_NUM_TASKS"]
