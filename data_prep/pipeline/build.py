"""The pipeline: input files to a complete corpus, in one command or in the tasks of an array.

The tasks are determined by the input and distributed over processes: the corpus is the same, byte
for byte, for any number of workers or array tasks. The output of tasks is kept beside the corpus
until all of it is merged, so the folder `corpus.path` is always complete, and a command that was
killed resumes after its last finished task.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import FORMAT, SPLITS, read_corpus_manifest, token_type_for
from data_prep.dedup.exact import mark_duplicates
from data_prep.dedup.minhash import NearDuplicates
from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from data_prep.locks import hold_lock
from data_prep.manifest import MANIFEST, file_sha256, first_difference, write_json
from data_prep.pipeline.build_state import WorkFolder
from data_prep.pipeline.early_checks import check_recipe
from data_prep.pipeline.merge import MergedPart, merge_part, totals
from data_prep.pipeline.task import Task, TaskResult, finds_duplicates, open_encoder
from data_prep.pipeline.worker_pool import map_in_workers, prepare_workers, run_tasks
from data_prep.progress import Progress, log
from data_prep.readers.listing import cut_into_tasks, list_input, share_of_array
from data_prep.readers.sources import Source
from data_prep.readers.survey import survey_input
from data_prep.tokenizers.build import ensure_tokenizer, tokenizer_of_build
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer

# NSP negatives come from another document of the same split.
_MIN_DOCUMENTS = 2
_SHOWN_TASKS = 10
_REMEDIES = {
    "train": "give more text, or check which input.documents separates its documents",
    "validation": "raise corpus.validation_share, or give more text",
}
# What lay in the input folders: kept in the manifest, though no part of what decides a corpus.
_FOUND = "input_files"
# Counts of documents that were changed and are in the corpus; all other counts are of dropped ones.
_CHANGED = ("divided", "mended", "replaced", "altered")


def build_corpus(recipe: CorpusRecipe) -> dict[str, Any]:
    """Make the tokenizer if it is missing, then the corpus, and return the corpus manifest.

    A complete corpus of the same text, options and tokenizer is left unchanged; an unfinished one
    is resumed.

    Raises:
        UserError: when the input, the tokenizer or an existing corpus does not fit the recipe, when
            the disk is full, and when another process is making the same corpus.
    """
    if recipe.workers > 1:
        prepare_workers()
    sources, found = _list_sources(recipe)
    with tokenizer_of_build(recipe, sources) as tokenizer:
        facts = {**_facts(recipe, sources, tokenizer), _FOUND: found}
        if manifest := _existing_corpus(recipe.corpus.path, facts, sources):
            return manifest
        with clear_disk_errors(recipe.corpus.path), _locked(recipe, shared=False):
            work = _open_work(recipe, facts, sources)
            _run(recipe, work, work.tasks)
            return _merge(recipe, work, facts)


def run_array_task(recipe: CorpusRecipe, index: int, count: int) -> None:
    """Run share `index` of `count` equal shares of the input; `merge_corpus` finishes the corpus.

    Raises:
        UserError: as `build_corpus`, and when `index` is not below `count`.
    """
    if not 0 <= index < count:
        raise UserError(f"There is no array task {index} of {count}: count from 0 to {count - 1}.")
    if recipe.workers > 1:
        prepare_workers()
    sources, facts = _open_input(recipe)
    if _existing_corpus(recipe.corpus.path, facts, sources):
        return
    with clear_disk_errors(recipe.corpus.path), _locked(recipe, shared=True):
        work = _open_work(recipe, facts, sources)
        work.note_array(count)
        shares = share_of_array([task.size for task in work.tasks], count)
        own = [task for task, share in zip(work.tasks, shares, strict=True) if share == index]
        _run(recipe, work, own)


def merge_corpus(recipe: CorpusRecipe) -> dict[str, Any]:
    """Check the output of all tasks, and merge it into the corpus.

    Raises:
        UserError: when a task is missing, or still running.
    """
    if recipe.workers > 1:
        prepare_workers()
    sources, facts = _open_input(recipe)
    if manifest := _existing_corpus(recipe.corpus.path, facts, sources):
        return manifest
    with clear_disk_errors(recipe.corpus.path), _locked(recipe, shared=False):
        return _merge(recipe, _open_work(recipe, facts, sources), facts)


def _open_input(recipe: CorpusRecipe) -> tuple[list[Source], dict[str, Any]]:
    sources, found = _list_sources(recipe)
    tokenizer = ensure_tokenizer(recipe, sources)
    return sources, {**_facts(recipe, sources, tokenizer), _FOUND: found}


def _list_sources(recipe: CorpusRecipe) -> tuple[list[Source], dict[str, Any]]:
    """Return the input files, and what else lay in their folders.

    Raises:
        UserError: for what can be refused before any work, too.
    """
    check_recipe(recipe)
    listing = list_input(recipe.corpora)
    return listing.sources, survey_input(listing, recipe.corpora)


def _facts(
    recipe: CorpusRecipe, sources: Sequence[Source], tokenizer: LoadedTokenizer
) -> dict[str, Any]:
    """Return the part of the manifest that is known before any text is read."""
    options = recipe.facts()
    options["clean"]["evaluation"] = [_evaluation_hash(path) for path in recipe.clean.evaluation]
    if threshold := recipe.clean.near_duplicates:
        options["clean"]["near_duplicates_method"] = NearDuplicates(threshold).method
    return {
        "format": FORMAT,
        "token_type": token_type_for(tokenizer.vocab_size).name,
        "tokenizer": _recorded_fingerprint(recipe.corpus.path, tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "sources": [source.facts() for source in sources],
        "options": options,
    }


def _recorded_fingerprint(path: Path, tokenizer: LoadedTokenizer) -> str:
    """Return the tokenizer's fingerprint, or an earlier version's that an existing corpus has."""
    if (path / MANIFEST).is_file():
        recorded = str(read_corpus_manifest(path, hashes=False)["tokenizer"])
        if tokenizer.is_recorded_as(recorded):
            return recorded
    return tokenizer.fingerprint


def _evaluation_hash(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"There is no evaluation file {path}: correct clean.evaluation.")
    return file_sha256(path)[:16]


def _existing_corpus(
    path: Path, facts: dict[str, Any], sources: Sequence[Source]
) -> dict[str, Any] | None:
    """Return the manifest of a corpus that exists, after checking that it fits the recipe."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    if not (path / MANIFEST).is_file():
        raise UserError(
            f"{path} exists and is no corpus: choose another corpus.path, or move it away."
        )
    manifest = read_corpus_manifest(path, hashes=False)
    if difference := _difference(facts, manifest):
        raise UserError(
            f"The corpus {path} exists and was made with another {difference}: remove it, or "
            "choose another corpus.path."
        )
    # The manifest has sizes of the input, not hashes, because an up-to-date corpus should not cost
    # reading all of it again.
    made = (path / MANIFEST).stat().st_mtime
    if changed := [source for source in sources if source.modified_s() > made]:
        raise UserError(
            f"The corpus {path} is older than its input {changed[0].path}: remove it, or choose "
            "another corpus.path."
        )
    log(f"{path} is up to date.")
    return manifest


def _difference(facts: dict[str, Any], manifest: dict[str, Any]) -> str | None:
    """Return the first fact that differs from the manifest, in words, or None."""
    deciding = {name: fact for name, fact in facts.items() if name != _FOUND}
    difference = first_difference(deciding, manifest, ignore_extra=True)
    if difference is None:
        return None
    key, expected, found = difference
    if isinstance(expected, list):
        return f"list of {key}"
    return f"{key.removeprefix('options.')} ({found!r}, and now it is {expected!r})"


def _locked(recipe: CorpusRecipe, shared: bool) -> Any:
    path = recipe.corpus.path
    return hold_lock(path.with_name(f".{path.name}.lock"), f"making {path}", shared=shared)


def _open_work(
    recipe: CorpusRecipe, facts: dict[str, Any], sources: Sequence[Source]
) -> WorkFolder:
    tasks = [Task(index=i, slices=slices) for i, slices in enumerate(cut_into_tasks(sources))]
    shared = {name: fact for name, fact in facts.items() if name not in ("sources", _FOUND)}
    work = WorkFolder(recipe.corpus.path, shared, tasks)
    work.path.mkdir(parents=True, exist_ok=True)
    return work


def _run(recipe: CorpusRecipe, work: WorkFolder, tasks: Sequence[Task]) -> None:
    """Run the tasks that are not done."""
    missing = [task for task in tasks if work.result(task) is None]
    workers = max(1, min(recipe.workers, len(missing)))
    log(f"tasks: {len(tasks):,}, done before: {len(tasks) - len(missing):,}, workers: {workers}")
    if not missing:
        return
    _log_backends(recipe)
    with Progress(sum(task.size for task in missing)) as progress:
        for result in run_tasks(recipe, work, missing, workers):
            shards = [shard for part in result.parts for shard in part.shards.values()]
            progress.add(
                result.task.size,
                sum(shard.documents for shard in shards),
                sum(shard.tokens for shard in shards),
                sum(count for what, count in result.counts.items() if what not in _CHANGED),
            )
        log(progress.summary())


def _log_backends(recipe: CorpusRecipe) -> None:
    """Name the libraries that compute ids, and why where it is not a fast one."""
    tokenizer = load_tokenizer(recipe.tokenizer.path)
    encoders = [open_encoder(recipe, options, tokenizer) for options in recipe.corpora.values()]
    for name, reason in dict.fromkeys((e.backend.name, e.backend.reason) for e in encoders):
        log(f"tokenizing with {name}" + (f": {reason}" if reason else ""))


def _merge(recipe: CorpusRecipe, work: WorkFolder, facts: dict[str, Any]) -> dict[str, Any]:
    results = _finished_results(recipe, work)
    parts = [part for result in results for part in result.parts]
    deduplicate = finds_duplicates(recipe)
    if deduplicate:
        log(f"looking for duplicates in {len(parts):,} parts")
        mark_duplicates(work.path, [part.name for part in parts], recipe.clean)
    folder = work.path / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    token_type = token_type_for(facts["vocab_size"])
    merge = partial(
        merge_part, work.path, corpus=folder, token_type=token_type, deduplicate=deduplicate
    )
    merged = list(map_in_workers(merge, parts, recipe.workers))
    manifest = _write_manifest(folder, facts, results, merged)
    folder.replace(recipe.corpus.path)
    shutil.rmtree(work.path)
    _log_result(recipe.corpus.path, manifest)
    return manifest


def _finished_results(recipe: CorpusRecipe, work: WorkFolder) -> list[TaskResult]:
    found = [(task, work.result(task)) for task in work.tasks]
    if missing := [task.index for task, result in found if result is None]:
        raise UserError(
            f"{len(missing)} of the {len(work.tasks)} tasks of {recipe.corpus.path} are missing "
            f"(the first is {missing[0]}): {_remedy_for_missing(work, missing)}, then --merge."
        )
    results = [result for _, result in found if result is not None]
    for name, options in recipe.corpora.items():
        own = [result for result in results if result.task.slices[0].source.corpus == name]
        broken = sum(result.counts["broken"] for result in own)
        if broken > options.max_bad_records:
            raise UserError(
                f"The corpus {name!r} has {broken} broken records and max_bad_records is "
                f"{options.max_bad_records}: correct them, or raise it."
            )
    return results


def _remedy_for_missing(work: WorkFolder, missing: Sequence[int]) -> str:
    """Return which array tasks to run again, by name if all were started with the same `--of`."""
    counts = work.array_counts()
    if len(counts) != 1:
        return "run all array tasks with the same --of"
    shares = share_of_array([task.size for task in work.tasks], counts[0])
    names = [f"{share} of {counts[0]}" for share in sorted({shares[index] for index in missing})]
    shown = ", ".join(names[:_SHOWN_TASKS]) + (", ..." if len(names) > _SHOWN_TASKS else "")
    return f"run array task {shown} again (--task K --of N)"


def _write_manifest(
    folder: Path,
    facts: dict[str, Any],
    results: Sequence[TaskResult],
    merged: Sequence[MergedPart],
) -> dict[str, Any]:
    splits = {split: totals(split, merged) for split in SPLITS}
    counts: Counter[str] = Counter()
    for counted in (*(result.counts for result in results), *(part.dropped for part in merged)):
        counts.update(counted)
    dropped = {what: n for what, n in sorted(counts.items()) if n and what not in _CHANGED}
    for name, remedy in _REMEDIES.items():
        if (found := splits[name]["documents"]) < _MIN_DOCUMENTS:
            raise UserError(
                f"The {name} split has {found} documents and next-sentence pairs need at least "
                f"{_MIN_DOCUMENTS} (dropped: {_in_words(dropped)}): {remedy}."
            )
    manifest = {
        **facts,
        "splits": splits,
        "dropped": dropped,
        "changed": {what: counts[what] for what in _CHANGED if counts[what]},
        "files": dict(sorted(item for part in merged for item in part.files.items())),
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def _log_result(path: Path, manifest: dict[str, Any]) -> None:
    for name, split in manifest["splits"].items():
        log(
            f"{name}: {split['documents']:,} documents, {split['sentences']:,} sentences, "
            f"{split['tokens']:,} tokens"
        )
    log(f"dropped: {_in_words(manifest['dropped'])}")
    if manifest["changed"]:
        log(f"changed: {_in_words(manifest['changed'])}")
    log(f"wrote {path}")


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items()) or "nothing"
