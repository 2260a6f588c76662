"""Worker processes that run tasks; with one worker everything runs in this process."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any, TypeVar

from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.locks import hold_lock
from data_prep.pipeline.build_state import WorkFolder
from data_prep.pipeline.task import Task, TaskResult, TaskRunner

Item = TypeVar("Item")
Result = TypeVar("Result")
_ENDING_S = 5.0


def prepare_workers() -> None:
    """Start the process that workers are forked from, while this one goes on.

    It has imported what a task needs and runs no threads: forking this process, which may run those
    of the tokenizer, could deadlock, and an interpreter for each worker takes half a second.
    """
    multiprocessing.set_forkserver_preload(["data_prep.pipeline.task"])
    forkserver.ensure_running()


def run_tasks(
    recipe: CorpusRecipe, work: WorkFolder, tasks: Sequence[Task], workers: int
) -> Iterator[TaskResult]:
    """Run tasks, and yield the result of each once its completion marker is written.

    Raises:
        UserError: when a task fails, or another process is running it; tasks that have finished
            by then stay done.
    """
    if workers == 1:
        runner = TaskRunner(recipe, work.path)
        yield from (_run(runner, work, task) for task in tasks)
        return
    with _pool(workers, _start, recipe, work) as pool:
        for future in as_completed([pool.submit(_run_in_worker, task) for task in tasks]):
            yield future.result()


def map_in_workers(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterable[Result]:
    """Return the results of a function for each item, in order."""
    if min(workers, len(items)) <= 1:
        return map(function, items)
    with _pool(min(workers, len(items))) as pool:
        return list(pool.map(function, items))


def _run(runner: TaskRunner, work: WorkFolder, task: Task) -> TaskResult:
    # Two array tasks of the same index would write the same files.
    what = f"running task {task.index} of {work.path}"
    # The workers of a command that was killed end a moment after it.
    with hold_lock(work.lock_of(task), what, timeout_s=_ENDING_S):
        result = runner.run(task)
        work.save(result)
    return result


def _no_setup() -> None:
    """Start a worker that needs no setup."""


@contextlib.contextmanager
def _pool(
    workers: int, start: Callable[..., None] = _no_setup, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=_initialise,
        initargs=(start, *arguments),
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process was killed, most likely because memory ran out: run again with fewer "
            f"workers than {workers} (workers=N); finished tasks stay done."
        ) from error
    finally:
        # Running tasks are finished, so that no process writes into the folder afterwards.
        pool.shutdown(wait=True, cancel_futures=True)


def _initialise(start: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    start(*arguments)


def _exit_with_parent() -> None:
    """End this worker when the process that started the pool is gone, however it ended.

    Otherwise the workers of a killed command would keep their memory, and the locks of its tasks.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


_runner: TaskRunner | None = None
_work: WorkFolder | None = None


def _start(recipe: CorpusRecipe, work: WorkFolder) -> None:
    global _runner, _work
    # One thread a process: more would only compete with the other processes.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _runner, _work = TaskRunner(recipe, work.path), work


def _run_in_worker(task: Task) -> TaskResult:
    if _runner is None or _work is None:
        raise RuntimeError("the worker was not started")
    return _run(_runner, _work, task)
