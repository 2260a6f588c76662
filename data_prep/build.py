"""The pipeline: input files to a complete corpus, or to nothing at all.

Everything is written beside its final place and renamed at the end, so that a folder called
`corpus.path` is always whole. The tasks are fixed by the input, and processes only share them
out: the corpus is the same, byte for byte, for any number of workers.
"""

import contextlib
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from data_prep.manifest import MANIFEST, write_manifest
from data_prep.options import CorpusRecipe
from data_prep.progress import Progress, log
from data_prep.shards import FORMAT, SPLITS, read_corpus_manifest, shard_files, token_type_for
from data_prep.sources import Source, cut_into_tasks, list_sources
from data_prep.task import Task, TaskResult, TaskRunner
from data_prep.tokenizer import LoadedTokenizer
from data_prep.vocabulary import ensure_tokenizer

# Next-sentence pairs take their wrong second half from another document of the same split.
_MIN_DOCUMENTS = 2
_REMEDIES = {
    "train": "give more text, or see what input.documents takes for a document",
    "validation": "raise corpus.validation_share, or give more text",
}


def build_corpus(recipe: CorpusRecipe) -> dict[str, Any]:
    """Make the tokenizer if it is missing, then the corpus, and return the corpus manifest.

    A complete corpus of the same text, options and tokenizer is left as it is.

    Raises:
        UserError: when the input, the tokenizer or an existing corpus does not fit the recipe,
            and when the disk is full. Nothing half-written stays.
    """
    sources = list_sources(recipe.corpora)
    with clear_disk_errors(recipe.tokenizer.path):
        tokenizer = ensure_tokenizer(recipe, sources)
    facts = _facts(recipe, sources, tokenizer)
    path = recipe.corpus.path
    if path.exists() and any(path.iterdir()):
        return _existing_corpus(path, facts, sources)
    with clear_disk_errors(path), _partial_directory(path) as partial:
        results = _run_tasks(recipe, sources, partial)
        manifest = _write_manifest(partial, facts, results)
        partial.replace(path)
    _log_result(path, manifest)
    return manifest


def _facts(
    recipe: CorpusRecipe, sources: Sequence[Source], tokenizer: LoadedTokenizer
) -> dict[str, Any]:
    """Return the part of the manifest that is known before any text is read."""
    return {
        "format": FORMAT,
        "token_type": token_type_for(tokenizer.vocab_size).name,
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "sources": [{"path": source.name, "bytes": source.size} for source in sources],
        "options": recipe.facts(),
    }


def _existing_corpus(
    path: Path, facts: dict[str, Any], sources: Sequence[Source]
) -> dict[str, Any]:
    """Return the manifest of a corpus that is already there, if it is the one asked for."""
    manifest = read_corpus_manifest(path, hashes=False)
    if difference := _difference(facts, manifest):
        raise UserError(
            f"The corpus {path} exists and was made with another {difference}: remove it, or "
            "choose another corpus.path."
        )
    # The manifest keeps sizes, not hashes of the input, because reading it all again is what an
    # up-to-date corpus saves.
    made = (path / MANIFEST).stat().st_mtime
    if changed := [source for source in sources if source.path.stat().st_mtime > made]:
        raise UserError(
            f"The corpus {path} is older than its input {changed[0].path}: remove it, or choose "
            "another corpus.path."
        )
    log(f"{path} is up to date.")
    return manifest


def _difference(wanted: Any, found: Any, key: str = "") -> str | None:
    """Name the first thing in which two trees differ, over the keys of the wanted one."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in wanted:
            inner = f"{key}.{name}" if key else name
            if difference := _difference(wanted[name], found.get(name), inner):
                return difference
        return None
    if wanted == found:
        return None
    if isinstance(wanted, list):
        return f"list of {key}"
    return f"{key.removeprefix('options.')} ({found!r}, and now it is {wanted!r})"


@contextlib.contextmanager
def _partial_directory(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, and remove it however the block ends."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run_tasks(recipe: CorpusRecipe, sources: Sequence[Source], partial: Path) -> list[TaskResult]:
    """Run every task and return the results in task order."""
    tasks = [Task(index=i, slices=slices) for i, slices in enumerate(cut_into_tasks(sources))]
    workers = min(recipe.workers, len(tasks))
    log(f"input files: {len(sources):,}, tasks: {len(tasks):,}, workers: {workers}")
    run = _run_here if workers == 1 else _run_in_processes
    results = []
    with Progress(sum(task.size for task in tasks)) as progress:
        for result in run(recipe, tasks, partial, workers):
            shards = result.shards.values()
            progress.add(
                result.task.size, sum(s.documents for s in shards), sum(s.tokens for s in shards)
            )
            results.append(result)
        log(progress.summary())
    return sorted(results, key=lambda result: result.task.index)


def _run_here(
    recipe: CorpusRecipe, tasks: Sequence[Task], partial: Path, workers: int
) -> Iterator[TaskResult]:
    runner = TaskRunner(recipe, partial)
    return (runner.run(task) for task in tasks)


def _run_in_processes(
    recipe: CorpusRecipe, tasks: Sequence[Task], partial: Path, workers: int
) -> Iterator[TaskResult]:
    pool = ProcessPoolExecutor(
        workers,
        # Forking a process that already runs the tokenizer's threads can deadlock.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(recipe, partial),
    )
    try:
        for future in as_completed([pool.submit(_run_in_worker, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process was killed, most likely for want of memory: run again with fewer "
            f"workers than {workers} (workers=N)."
        ) from error
    finally:
        # On an error the folder is removed next, so no task may still be writing into it.
        pool.shutdown(wait=True, cancel_futures=True)


_runner: TaskRunner | None = None


def _start_worker(recipe: CorpusRecipe, partial: Path) -> None:
    global _runner
    # Processes are the parallelism; threads inside each would only compete with the others.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _runner = TaskRunner(recipe, partial)


def _run_in_worker(task: Task) -> TaskResult:
    if _runner is None:
        raise RuntimeError("the worker was not started")
    return _runner.run(task)


def _write_manifest(
    partial: Path, facts: dict[str, Any], results: Sequence[TaskResult]
) -> dict[str, Any]:
    splits = {split: _split_facts(split, results) for split in SPLITS}
    dropped: Counter[str] = Counter()
    for result in results:
        dropped.update(result.dropped)
    for name, remedy in _REMEDIES.items():
        if (found := splits[name]["documents"]) < _MIN_DOCUMENTS:
            raise UserError(
                f"The {name} split has {found} documents and next-sentence pairs need at least "
                f"{_MIN_DOCUMENTS} (dropped: {dict(dropped)}): {remedy}."
            )
    names = [
        file
        for split in splits.values()
        for shard in split["shards"]
        for file in shard_files(shard["name"])
    ]
    return write_manifest(partial, {**facts, "splits": splits, "dropped": dict(dropped)}, names)


def _split_facts(split: str, results: Sequence[TaskResult]) -> dict[str, Any]:
    shards = [vars(result.shards[split]) for result in results if split in result.shards]
    totals = {
        count: sum(shard[count] for shard in shards)
        for count in ("documents", "sentences", "tokens")
    }
    return {**totals, "shards": shards}


def _log_result(path: Path, manifest: dict[str, Any]) -> None:
    for name, split in manifest["splits"].items():
        log(
            f"{name}: {split['documents']:,} documents, {split['sentences']:,} sentences, "
            f"{split['tokens']:,} tokens"
        )
    dropped = ", ".join(f"{count:,} {why}" for why, count in manifest["dropped"].items())
    log(f"dropped documents: {dropped}")
    log(f"wrote {path}")
