"""Text to token shards: the whole pipeline, the bare tokenizer, and a `datasets.map` pipeline.

All read the same JSON lines and cut sentences by the same rule. The bare tokenizer is the limit
of whoever tokenizes every sentence anew: its sentences are already in memory, and its ids are
thrown away. The pipelines read, cut, tokenize and write; ours cleans as well.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.config.loader import load_recipe
from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.progress import log
from data_prep.readers.listing import list_sources
from data_prep.tokenizers.build import ensure_tokenizer
from launch.benchmarks import prep_sides
from launch.benchmarks.prep_sides import BARE, MAP, MAP_FAST, OURS, STAGE_NAMES, STAGES
from launch.benchmarks.processes import MEMORY_KIND, Measured, Side, run_rounds, run_side
from launch.benchmarks.report import Row, usable_cores
from launch.benchmarks.text import Text, write_repeated, write_text

_SAMPLE = Path("sample")
_MB = 1_000_000
_QUICK_MB = 0.4


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
    parser.add_argument("--language", choices=["en", "zh"], default="en", help="sentence rules")
    parser.add_argument("--limit-mb", type=_positive, default=100.0, help="text to read, 10^6 B")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes of a side")
    parser.add_argument(
        "--memory-mb",
        type=_sizes,
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
    text = _make_text(arguments, scratch)
    job = _job(arguments, text, scratch)
    names = (BARE, OURS, MAP, MAP_FAST, STAGES)
    found = run_rounds([_side(name, job) for name in names], arguments.repeat, scratch)
    _print_terms(arguments, text, found)
    return compare(found, text.size)


def compare(found: dict[str, list[Measured]], text_bytes: int) -> list[Row]:
    """Return the rows of all sides, ours with their ratios to the others."""
    others = [_row(name, "tokens/s", found[name], _running) for name in (BARE, MAP, MAP_FAST)]
    started = [
        _row(f"{name}_with_startup", "tokens/s", found[name], _with_startup)
        for name in (OURS, MAP, MAP_FAST)
    ]
    ours = _row(OURS, "tokens/s", found[OURS], _running)
    rate = [text_bytes / _MB / run.result["seconds"] for run in found[OURS]]
    return [
        others[0],
        *others[1:],
        *started[1:],
        ours.against(others),
        started[0].against([others[0], *started[1:]]),
        Row(name=f"{OURS}_text", unit="MB/s", values=tuple(rate)),
        *_stage_rows(found[STAGES], text_bytes),
    ]


def _stage_rows(runs: Sequence[Measured], text_bytes: int) -> Iterable[Row]:
    """Yield the speed of each stage on one core, and its share of the time of all."""
    for stage in STAGE_NAMES:
        speeds = [text_bytes / _MB / max(run.result["stages"][stage], 1e-9) for run in runs]
        yield Row(name=f"ours/stage/{stage}", unit="MB/s", values=tuple(speeds))
    for stage in STAGE_NAMES:
        shares = [100 * run.result["stages"][stage] / run.result["seconds"] for run in runs]
        yield Row(name=f"ours/share/{stage}", unit="% of time", values=tuple(shares))


def _measure_memory(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Return our peak memory on inputs of several sizes, each held against the first."""
    paths = arguments.input or [_SAMPLE]
    rows: list[Row] = []
    for size_mb in arguments.memory_mb:
        folder = scratch / f"text_{size_mb:g}"
        text = write_repeated(folder, paths, arguments.language, int(size_mb * _MB))
        side = _side(OURS, _job(arguments, text, scratch))
        log(f"{OURS}: {text.size / _MB:,.1f} MB, {text.documents:,} documents")
        found = run_side(side, scratch)
        figures = {"all": found.peak_bytes, "largest_process": found.largest_bytes}
        for nth, (what, peak) in enumerate(figures.items()):
            name = f"ours/memory/{size_mb:g}_MB/{what}"
            row = Row(name=name, unit="MB", values=(peak / _MB,), peak_bytes=peak)
            rows.append(row.against(rows[nth : nth + 1]))
        print(f"{size_mb:g} MB: at most {found.processes} processes at once")
    print(f"memory is the sum of {MEMORY_KIND} over the process and its children, 4 times a second")
    return rows


def _make_text(arguments: argparse.Namespace, scratch: Path) -> Text:
    size = int(arguments.limit_mb * _MB)
    if arguments.input:
        return write_text(scratch / "text", arguments.input, arguments.language, size)
    return write_repeated(scratch / "text", [_SAMPLE], arguments.language, size)


def _job(arguments: argparse.Namespace, text: Text, scratch: Path) -> dict[str, Any]:
    """Write the recipe, make its tokenizer once, and return what the sides need to know."""
    tree = {
        "input": {"path": str(text.folder), "kind": "jsonl", "language": arguments.language},
        "tokenizer": {"path": str(scratch / "tokenizer"), **_tokenizer_of(arguments)},
        # A short text must hold out enough documents too; speed does not depend on it.
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


def _tokenizer_of(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.tokenizer:
        return {"kind": "existing", "vocabulary": str(arguments.tokenizer)}
    if arguments.vocabulary:
        return {"vocabulary": str(arguments.vocabulary)}
    return {"vocab_size": 6000 if arguments.quick else 16384}


def _side(name: str, job: dict[str, Any]) -> Side:
    return Side(
        name=name,
        module=prep_sides.__name__,
        job=job,
        variables=prep_sides.variables_of(name, job["workers"]),
    )


def _row(name: str, unit: str, runs: Sequence[Measured], rate: Any) -> Row:
    peak = max(run.peak_bytes for run in runs)
    return Row(name=name, unit=unit, values=tuple(map(rate, runs)), peak_bytes=peak)


def _running(run: Measured) -> float:
    """Return tokens a second, from the end of the imports to the end of the work."""
    return float(run.result["tokens"] / run.result["seconds"])


def _with_startup(run: Measured) -> float:
    """Return tokens a second of the whole process, interpreter and imports included."""
    return float(run.result["tokens"] / run.seconds)


def _print_terms(
    arguments: argparse.Namespace, text: Text, found: dict[str, list[Measured]]
) -> None:
    """Say what is compared with what."""
    tokens = {name: runs[0].result["tokens"] for name, runs in found.items()}
    print(
        f"{text.size / _MB:,.1f} MB of text, {text.documents:,} documents, {arguments.workers} "
        f"core(s) for each side, {arguments.repeat} round(s) in turns"
    )
    print(f"{BARE}: encode_batch_fast on sentences in memory, ids not kept")
    print(f"{OURS}: launch/prepare_data.py as it is typed, on a tokenizer that is ready")
    print(f"{MAP}: load_dataset + map to Arrow, AutoTokenizer; _fast: encode_batch_fast instead")
    print(f"peak: {MEMORY_KIND} of a process and all its children; stages: one core, one process")
    print("tokens, without special ones: " + ", ".join(f"{n} {t:,}" for n, t in tokens.items()))
    print()


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _sizes(text: str) -> list[float]:
    return [_positive(size) for size in text.split(",")]
