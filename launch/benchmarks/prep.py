"""Text to token shards: the whole pipeline, the bare tokenizer, and a `datasets.map` pipeline.

ours/prepare_data: launch/prepare_data.py as it is typed, on a tokenizer that is ready
ours/stage, ours/share: of the same in one process, with a clock around the functions of a stage;
    writing is all that is neither reading, cleaning nor tokenizing: keys, splits, shards, hashes
limit/bare_tokenizer: encode_batch_fast on sentences that are cut and in memory, ids not kept
limit/nanotoken: the same by the library that computes our ids of a WordPiece
peer/datasets_map: load_dataset and map to Arrow, AutoTokenizer; _fast: encode_batch_fast instead
All read the same JSON lines and split sentences by the same rule; the peers clean nothing. Figures
count tokens without special ones, from the end of the imports (_with_startup: from the start of
the process). Peak: memory of a process and all its children, read four times a second.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from launch.benchmarks.driver import (
    Found,
    Run,
    count_options,
    measure_in_turns,
    positive,
    process_side,
    row_of,
    tokens_per_s,
)
from launch.benchmarks.report import Row, compare, usable_cores

# Every side is a fresh process that imports this file; what only some need, they import themselves.
Job = Mapping[str, Any]
BARE, OURS, STAGES = "limit/bare_tokenizer", "ours/prepare_data", "ours/stages"
NANOTOKEN = "limit/nanotoken"
MAP, MAP_FAST = "peer/datasets_map", "peer/datasets_map_fast"
STAGE_NAMES = ("reading", "cleaning", "sentences_and_ids", "writing")
_MB = 1_000_000
_QUICK_MB = 0.4
# Sentences of one call: enough for every thread, few enough that encodings do not pile up.
_SENTENCES_A_CALL = 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    without = "files and folders of text; without it the shipped sample is repeated with changes"
    parser.add_argument("--input", type=Path, nargs="+", metavar="PATH", help=without)
    tokenizer = parser.add_mutually_exclusive_group()
    tokenizer.add_argument("--vocabulary", type=Path, metavar="FILE", help="a vocab.txt to use")
    tokenizer.add_argument("--tokenizer", type=Path, metavar="DIR", help="a Hugging Face folder")
    parser.add_argument("--language", default="en", help="code of the sentence rules")
    limit = "text to read, 10^6 B"
    parser.add_argument("--limit-mb", type=positive(float), default=100.0, help=limit)
    numbers = {"--repeat": (3, "rounds"), "--workers": (usable_cores(), "processes of a side")}
    count_options(parser, numbers)
    parser.add_argument(
        "--memory-mb",
        type=lambda text: [positive(float)(size) for size in text.split(",")],
        metavar="MB,MB",
        help="instead: our peak memory on inputs of these sizes, made by repeating with changes",
    )


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    from launch.benchmarks.text import is_wordpiece, make_job

    if arguments.quick:
        arguments.limit_mb, arguments.repeat = min(arguments.limit_mb, _QUICK_MB), 1
    if arguments.memory_mb:
        return _measure_memory(arguments, scratch)
    text, job = make_job(arguments, arguments.limit_mb, scratch)
    names = [name for name in SIDES if name != NANOTOKEN or is_wordpiece(job)]
    sides = {name: _side(name, job, scratch) for name in names}
    found = measure_in_turns(sides, arguments.repeat)
    print(
        f"{text.size / _MB:,.1f} MB of text, {text.documents:,} documents, {arguments.workers} "
        f"core(s) for each side"
    )
    return rows_of(found, text.size)


def rows_of(found: Found, text_bytes: int) -> list[Row]:
    """Return the rows of all sides, ours with their ratios to the others."""
    limits, peers = [name for name in (BARE, NANOTOKEN) if name in found], [MAP, MAP_FAST]
    started = {name: f"{name}_with_startup" for name in (OURS, *peers)}
    rows = [row_of(n, "tokens/s", found[n], tokens_per_s) for n in (*limits, *peers, OURS)]
    rows += [row_of(name, "tokens/s", found[n], _with_startup) for n, name in started.items()]
    against = {OURS: [*limits, *peers], started[OURS]: [BARE, *(started[n] for n in peers)]}
    rate = tuple(text_bytes / _MB / run.result["seconds"] for run in found[OURS])
    text_row = Row(name=f"{OURS}_text", unit="MB/s", values=rate)
    return [*compare(rows, against), text_row, *_stage_rows(found[STAGES], text_bytes)]


def _with_startup(run: Run) -> float:
    return float(run.result["tokens"] / run.seconds)


def _stage_rows(runs: Sequence[Run], text_bytes: int) -> list[Row]:
    """Return the speed of each stage on one core, and its share of the time of all."""
    speeds, shares = [], []
    for stage in STAGE_NAMES:
        pairs = [(max(run.result["stages"][stage], 1e-9), run.result["seconds"]) for run in runs]
        rates = tuple(text_bytes / _MB / own for own, _ in pairs)
        percent = tuple(100 * own / whole for own, whole in pairs)
        speeds.append(Row(name=f"ours/stage/{stage}", unit="MB/s", values=rates))
        shares.append(Row(name=f"ours/share/{stage}", unit="% of time", values=percent))
    return speeds + shares


def _measure_memory(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Return our peak memory on inputs of several sizes, each compared with the first."""
    from launch.benchmarks.text import make_job

    rows: list[Row] = []
    for size_mb in arguments.memory_mb:
        _, job = make_job(arguments, size_mb, scratch, repeat=True)
        found = _side(OURS, job, scratch)()
        figures = {"all": found.peak_bytes or 0, "largest_process": found.result["largest_bytes"]}
        for nth, (what, peak) in enumerate(figures.items()):
            name = f"ours/memory/{size_mb:g}_MB/{what}"
            row = Row(name=name, unit="MB", values=(peak / _MB,), peak_bytes=peak)
            rows.append(row.against(rows[nth : nth + 1]))
        print(f"{size_mb:g} MB: at most {found.result['processes']} processes at once")
    return rows


def _side(name: str, job: Job, scratch: Path) -> Callable[[], Run]:
    # Threads for the bare tokenizers, processes for all others.
    threads = job["workers"] if name in (BARE, NANOTOKEN) else 1
    return process_side(__name__, name, job, scratch, threads)


def _bare_tokenizer(job: Job, work: Path) -> dict[str, Any]:
    tokenizer = _tokenizer(job)
    tokenizer.encode_special_tokens = True

    def count(batch: Sequence[str]) -> int:
        return sum(map(len, tokenizer.encode_batch_fast(batch, add_special_tokens=False)))

    return _count_tokens(job, count)


def _nanotoken(job: Job, work: Path) -> dict[str, Any]:
    from nanotoken import Tokenizer

    tokenizer = Tokenizer(str(Path(job["tokenizer"], "tokenizer.json")))
    options = {"add_special_tokens": False, "parallel": job["workers"] > 1}
    return _count_tokens(job, lambda batch: tokenizer.encode_batch(batch, **options).num_tokens)


def _count_tokens(job: Job, count: Callable[[Sequence[str]], int]) -> dict[str, Any]:
    """Count the tokens of all sentences, which are cut before the clock starts."""
    lines = [line for part in _parts(job) for line in part.open(encoding="utf-8")]
    texts = _split((json.loads(line)["text"] for line in lines), job)
    sentences = [sentence for text in texts for sentence in text]
    del lines, texts
    started = time.perf_counter()
    starts = range(0, len(sentences), _SENTENCES_A_CALL)
    tokens = sum(count(sentences[start : start + _SENTENCES_A_CALL]) for start in starts)
    return {"tokens": tokens, "seconds": time.perf_counter() - started}


def _prepare_data(job: Job, work: Path) -> dict[str, Any]:
    from launch import prepare_data

    options = [f"workers={job['workers']}", f"corpus.path={work / 'corpus'}"]
    started = time.perf_counter()
    with mock.patch.object(sys, "argv", ["prepare_data.py", "--config", job["recipe"], *options]):
        prepare_data.main()
    seconds = time.perf_counter() - started
    manifest = json.loads((work / "corpus" / "manifest.json").read_text(encoding="utf-8"))
    tokens = sum(split["tokens"] for split in manifest["splits"].values())
    return {"tokens": tokens, "seconds": seconds}


def _stages(job: Job, work: Path) -> dict[str, Any]:
    from data_prep.filters.cleaning import Cleaner
    from data_prep.pipeline import task
    from data_prep.tokenize.encoder import TextEncoder

    clock = dict.fromkeys(STAGE_NAMES, 0.0)
    with (
        _timed(clock, "reading", task, "read_documents"),
        _timed(clock, "cleaning", Cleaner, "clean_all"),
        _timed(clock, "cleaning", Cleaner, "reason_to_drop"),
        _timed(clock, "sentences_and_ids", TextEncoder, "encode"),
    ):
        result = _prepare_data({**job, "workers": 1}, work)  # with one, all is in this process
    clock["writing"] = result["seconds"] - sum(clock.values())
    return {**result, "stages": clock}


def _timed(clock: dict[str, float], stage: str, owner: Any, name: str) -> Any:
    """Return a patch that adds the seconds of a function, or of its iterator, to a stage."""
    function = getattr(owner, name)

    def count(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            clock[stage] += time.perf_counter() - started

    def timed(*arguments: Any, **options: Any) -> Any:
        made, end = count(function, *arguments, **options), object()
        if not isinstance(made, Iterator):
            return made
        return iter(lambda: count(next, made, end), end)

    return mock.patch.object(owner, name, timed)


def _datasets_map(job: Job, work: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])
    options = dict.fromkeys(
        ("add_special_tokens", "return_attention_mask", "return_token_type_ids", "verbose"), False
    )
    return _map_corpus(
        job, work, lambda batch: list(tokenizer(list(batch), **options)["input_ids"])
    )


def _datasets_map_fast(job: Job, work: Path) -> dict[str, Any]:
    tokenizer = _tokenizer(job)

    def encode(sentences: Sequence[str]) -> list[list[int]]:
        encodings = tokenizer.encode_batch_fast(sentences, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    return _map_corpus(job, work, encode)


def _map_corpus(
    job: Job, work: Path, encode: Callable[[Sequence[str]], list[list[int]]]
) -> dict[str, Any]:
    """Make an Arrow table of documents, sentences and ids; nothing is left out or cleaned."""
    import datasets
    import pyarrow.compute as pc

    datasets.disable_progress_bars()

    def documents_of(batch: Mapping[str, list[str]]) -> dict[str, list[list[list[int]]]]:
        texts = _split(batch["text"], job)
        ids = iter(encode([sentence for text in texts for sentence in text]))
        return {"input_ids": [[next(ids) for _ in text] for text in texts]}

    def processes(most: int) -> int | None:
        return most if most > 1 else None

    parts, workers, cache = list(map(str, _parts(job))), job["workers"], str(work / "cache")
    split = {"data_files": parts, "split": "train", "cache_dir": cache}
    started = time.perf_counter()
    read = datasets.load_dataset("json", **split, num_proc=processes(min(workers, len(parts))))
    made = read.map(
        documents_of,
        batched=True,
        num_proc=processes(workers),
        remove_columns=["text"],
        load_from_cache_file=False,
    )
    seconds = time.perf_counter() - started
    lengths = pc.list_value_length(pc.list_flatten(made.data.column("input_ids")))
    return {"tokens": pc.sum(lengths).as_py() or 0, "seconds": seconds}


def _tokenizer(job: Job) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(job["tokenizer"], "tokenizer.json")))


def _parts(job: Job) -> list[Path]:
    return sorted(Path(job["text"]).iterdir())


def _split(texts: Iterable[str], job: Job) -> list[list[str]]:
    """Return the sentences of each text; all sides split by this rule."""
    from data_prep.tokenize.sentence_rules import split_sentences

    return [split_sentences(text, job["language"]) for text in texts]


SIDES: Mapping[str, Callable[[Job, Path], dict[str, Any]]] = {
    BARE: _bare_tokenizer,
    NANOTOKEN: _nanotoken,
    OURS: _prepare_data,
    MAP: _datasets_map,
    MAP_FAST: _datasets_map_fast,
    STAGES: _stages,
}
