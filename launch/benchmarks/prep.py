"""Text to token shards: the whole pipeline, the bare tokenizer, and a `datasets.map` pipeline.

All read the same JSON lines and split sentences by the same rule. The bare tokenizer is the limit
of tokenizing sentence by sentence: they are already in memory, and its ids are not kept.
The pipelines read, split, tokenize and write; ours cleans as well.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.config.loader import load_recipe
from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.readers.listing import list_sources
from data_prep.tokenize.backends import choose_backend
from data_prep.tokenizers.build import ensure_tokenizer
from data_prep.tokenizers.folder import load_tokenizer
from launch.benchmarks import prep_sides
from launch.benchmarks.driver import MEMORY_KIND, Found, ProcessSide, Run, measure_in_turns, row_of
from launch.benchmarks.prep_sides import (
    BARE,
    MAP,
    MAP_FAST,
    NANOTOKEN,
    OURS,
    STAGE_NAMES,
    STAGES,
)
from launch.benchmarks.report import Row, compare, usable_cores
from launch.benchmarks.text import SAMPLE, Text, write_repeated, write_text

_MB = 1_000_000
_QUICK_MB = 0.4
_STARTED = {name: f"{name}_with_startup" for name in (OURS, MAP, MAP_FAST)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    parser.add_argument(
        "--input",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="files and folders of text; without it the shipped sample is repeated with changes",
    )
    tokenizer = parser.add_mutually_exclusive_group()
    tokenizer.add_argument("--vocabulary", type=Path, metavar="FILE", help="a vocab.txt to use")
    tokenizer.add_argument("--tokenizer", type=Path, metavar="DIR", help="a Hugging Face folder")
    parser.add_argument("--language", default="en", help="code of the sentence rules")
    parser.add_argument("--limit-mb", type=_positive, default=100.0, help="text to read, 10^6 B")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes of a side")
    parser.add_argument(
        "--memory-mb",
        type=lambda text: [_positive(size) for size in text.split(",")],
        metavar="MB,MB",
        help="instead: our peak memory on inputs of these sizes, made by repeating with changes",
    )


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    if min(arguments.repeat, arguments.workers) < 1:
        raise UserError("--repeat and --workers must be at least 1.")
    if arguments.quick:
        arguments.limit_mb, arguments.repeat = min(arguments.limit_mb, _QUICK_MB), 1
    if arguments.memory_mb:
        return _measure_memory(arguments, scratch)
    size = int(arguments.limit_mb * _MB)
    write = write_text if arguments.input else write_repeated
    text = write(scratch / "text", arguments.input or [SAMPLE], arguments.language, size)
    job = make_job(arguments, text, scratch)
    names = [name for name in prep_sides.SIDES if name != NANOTOKEN or _is_wordpiece(job)]
    found = measure_in_turns([_side(name, job, scratch) for name in names], arguments.repeat)
    _print_terms(arguments, text, found)
    return rows_of(found, text.size)


def rows_of(found: Found, text_bytes: int) -> list[Row]:
    """Return the rows of all sides, ours with their ratios to the others."""
    limits = [name for name in (BARE, NANOTOKEN) if name in found]
    running = (*limits, MAP, MAP_FAST, OURS)
    rows = [row_of(name, "tokens/s", found[name], _running) for name in running]
    rows += [row_of(_STARTED[n], "tokens/s", found[n], _with_startup) for n in _STARTED]
    compared = compare(
        rows,
        {OURS: (*limits, MAP, MAP_FAST), _STARTED[OURS]: (BARE, _STARTED[MAP], _STARTED[MAP_FAST])},
    )
    rate = tuple(text_bytes / _MB / run.result["seconds"] for run in found[OURS])
    return [
        *compared,
        Row(name=f"{OURS}_text", unit="MB/s", values=rate),
        *_stage_rows(found[STAGES], text_bytes),
    ]


def _stage_rows(runs: Sequence[Run], text_bytes: int) -> list[Row]:
    """Return the speed of each stage on one core, and its share of the time of all."""
    speeds, shares = [], []
    for stage in STAGE_NAMES:
        seconds = [max(run.result["stages"][stage], 1e-9) for run in runs]
        rates = tuple(text_bytes / _MB / s for s in seconds)
        percent = tuple(
            100 * s / run.result["seconds"] for s, run in zip(seconds, runs, strict=True)
        )
        speeds.append(Row(name=f"ours/stage/{stage}", unit="MB/s", values=rates))
        shares.append(Row(name=f"ours/share/{stage}", unit="% of time", values=percent))
    return speeds + shares


def _measure_memory(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Return our peak memory on inputs of several sizes, each compared with the first."""
    paths = arguments.input or [SAMPLE]
    rows: list[Row] = []
    for size_mb in arguments.memory_mb:
        folder = scratch / f"text_{size_mb:g}"
        text = write_repeated(folder, paths, arguments.language, int(size_mb * _MB))
        ((found,),) = measure_in_turns(
            [_side(OURS, make_job(arguments, text, scratch), scratch)], 1
        ).values()
        figures = {"all": found.peak_bytes or 0, "largest_process": found.result["largest_bytes"]}
        for nth, (what, peak) in enumerate(figures.items()):
            name = f"ours/memory/{size_mb:g}_MB/{what}"
            row = Row(name=name, unit="MB", values=(peak / _MB,), peak_bytes=peak)
            rows.append(row.against(rows[nth : nth + 1]))
        print(f"{size_mb:g} MB: at most {found.result['processes']} processes at once")
    print(f"memory is the sum of {MEMORY_KIND} over the process and its children, 4 times a second")
    return rows


def make_job(arguments: argparse.Namespace, text: Text, scratch: Path) -> dict[str, Any]:
    """Write the recipe, make its tokenizer once, and return what the sides are called with."""
    tokenizer: dict[str, Any] = {"vocab_size": 6000 if arguments.quick else 16384}
    if arguments.tokenizer:
        tokenizer = {"kind": "existing", "vocabulary": str(arguments.tokenizer)}
    elif arguments.vocabulary:
        tokenizer = {"vocabulary": str(arguments.vocabulary)}
    tree = {
        "input": {"path": str(text.folder), "kind": "jsonl", "language": arguments.language},
        "tokenizer": {"path": str(scratch / "tokenizer"), **tokenizer},
        # A short text must have enough validation documents too; speed does not depend on it.
        "corpus": {
            "path": str(scratch / "corpus"),
            "validation_share": min(0.5, max(0.01, 20 / text.documents)),
        },
    }
    recipe = scratch / "recipe.yaml"
    recipe.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    loaded = load_recipe(CorpusRecipe, recipe)
    ensure_tokenizer(loaded, list_sources(loaded.corpora))
    return {
        "text": str(text.folder),
        "recipe": str(recipe),
        "tokenizer": str(loaded.tokenizer.path),
        "language": arguments.language,
        "workers": arguments.workers,
    }


def _is_wordpiece(job: dict[str, Any]) -> bool:
    """Tell whether nanotoken computes the ids of a job."""
    return choose_backend(load_tokenizer(Path(job["tokenizer"])).backend).name == "nanotoken"


def _side(name: str, job: dict[str, Any], scratch: Path) -> ProcessSide:
    # Threads for the bare tokenizers, processes for all others.
    threads = job["workers"] if name in (BARE, NANOTOKEN) else 1
    variables = {
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "RAYON_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return ProcessSide(
        name=name, module=prep_sides.__name__, job=job, variables=variables, scratch=scratch
    )


def _running(run: Run) -> float:
    """Return tokens a second, from the end of the imports to the end of the work."""
    return float(run.result["tokens"] / run.result["seconds"])


def _with_startup(run: Run) -> float:
    """Return tokens a second of the whole process, interpreter and imports included."""
    return float(run.result["tokens"] / run.seconds)


def _print_terms(arguments: argparse.Namespace, text: Text, found: Found) -> None:
    """Print what is compared with what."""
    tokens = ", ".join(f"{name} {runs[0].result['tokens']:,}" for name, runs in found.items())
    print(f"""\
{text.size / _MB:,.1f} MB of text, {text.documents:,} documents, {arguments.workers} core(s) for \
each side, {arguments.repeat} round(s) in turns
{BARE}: encode_batch_fast on sentences in memory, ids not kept
{NANOTOKEN}: the same by nanotoken
{OURS}: launch/prepare_data.py as it is typed, on a tokenizer that is ready
{MAP}: load_dataset + map to Arrow, AutoTokenizer; _fast: encode_batch_fast instead
peak: {MEMORY_KIND} of a process and all its children; stages: one core, one process
tokens, without special ones: {tokens}
""")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
