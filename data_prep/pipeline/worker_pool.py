"""Worker processes that run tasks; with one worker everything runs in this process."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.locks import hold_lock
from data_prep.pipeline.build_state import WorkFolder
from data_prep.pipeline.task import Task, TaskResult, TaskRunner

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    with hold_lock(work.lock_of(task), f"running task {task.index} of {work.path}"):
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
        # Forking a process that already runs the tokenizer's threads can deadlock.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start,
        initargs=arguments,
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
