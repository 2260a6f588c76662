"""Shards to batches: our loader beside the Hugging Face collators and a plain numpy builder.

Every side runs in one process on one thread and makes batches of the same samples. The collators
and the builder get them in memory, cut and as ids; ours reads its corpus, and packs rows.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.pipeline.build import build_corpus
from launch.benchmarks import loader_sides
from launch.benchmarks.loader_sides import (
    COLLATOR,
    LIMIT,
    NUMPY_PAIRS,
    UNIFORM,
    VARIABLES,
    WHOLE_WORD,
    WHOLE_WORD_COLLATOR,
    can_mask,
)
from launch.benchmarks.processes import MEMORY_KIND, Measured, Side, run_rounds
from launch.benchmarks.report import Row

_AGAINST = {
    UNIFORM: (COLLATOR, NUMPY_PAIRS, LIMIT),
    WHOLE_WORD: (WHOLE_WORD_COLLATOR, LIMIT),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="default: the shipped sample")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="the corpus's tokenizer")
    parser.add_argument("--row-tokens", type=int, default=128, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=256, help="rows of a batch")
    parser.add_argument("--steps", type=int, default=20, help="batches of a round")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    if min(arguments.repeat, arguments.rows, arguments.steps) < 1:
        raise UserError("--repeat, --rows and --steps must be at least 1.")
    if bool(arguments.corpus) != bool(arguments.tokenizer):
        raise UserError("--corpus and --tokenizer belong together: give both, or neither.")
    if arguments.quick:
        arguments.rows, arguments.steps, arguments.repeat = min(arguments.rows, 16), 2, 1
    if not arguments.corpus:
        arguments.corpus, arguments.tokenizer = prepare_sample(scratch)
    job = _job(arguments, scratch)
    sides = [Side(name=name, job=job, **_HOW) for name in _names()]
    found = run_rounds(sides, arguments.repeat, scratch)
    _print_terms(arguments)
    return compare(found)


def compare(found: dict[str, list[Measured]]) -> list[Row]:
    """Return the rows of all sides, ours last, with their ratios to the others."""
    rows = {name: _row(name, runs) for name, runs in found.items()}
    ours = [
        rows[name].against(rows[other] for other in others)
        for name, others in _AGAINST.items()
        if name in rows
    ]
    return [row for name, row in rows.items() if name not in _AGAINST] + ours


_HOW: dict[str, Any] = {"module": loader_sides.__name__, "variables": VARIABLES}


def _names() -> Sequence[str]:
    names = [LIMIT, UNIFORM, COLLATOR, NUMPY_PAIRS, WHOLE_WORD, WHOLE_WORD_COLLATOR]
    if not can_mask(WHOLE_WORD):
        print(f"{WHOLE_WORD} is left out: MaskOptions has no `policy` in this version.")
        names.remove(WHOLE_WORD)
    return names


def prepare_sample(scratch: Path) -> tuple[Path, Path]:
    """Prepare the shipped sample in a scratch folder; return its corpus and tokenizer folders."""
    tree = {
        "input": {"path": "sample", "documents": "file"},
        "tokenizer": {"path": scratch / "tokenizer", "vocab_size": 6000, "alphabet": 200},
        "corpus": {"path": scratch / "corpus", "validation_share": 0.05},
        "workers": 1,
    }
    recipe = CorpusRecipe.model_validate(tree)
    build_corpus(recipe)
    return recipe.corpus.path, recipe.tokenizer.path


def _job(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    return {
        "corpus": str(arguments.corpus),
        "tokenizer": str(arguments.tokenizer),
        "plans": str(scratch / "plans"),
        "row_tokens": arguments.row_tokens,
        "rows": arguments.rows,
        "steps": arguments.steps,
    }


def _row(name: str, runs: Sequence[Measured]) -> Row:
    rates = tuple(run.result["tokens"] / run.result["seconds"] for run in runs)
    peak = max(run.peak_bytes for run in runs)
    return Row(name=name, unit="tokens/s", values=rates, peak_bytes=peak)


def _print_terms(arguments: argparse.Namespace) -> None:
    """Say what is compared with what."""
    print(
        f"{arguments.steps} batches of {arguments.rows} rows of {arguments.row_tokens} tokens, "
        f"{arguments.repeat} round(s) in turns; one process, one thread; real tokens only"
    )
    print(f"{LIMIT}: gathers the same segments and draws keyed masks, and assembles nothing")
    print(f"{COLLATOR}: DataCollatorForLanguageModeling, ids in memory, padded to the longest")
    print(f"{WHOLE_WORD_COLLATOR}: the same with whole_word_mask=True, padded to a row")
    print(f"{NUMPY_PAIRS}: one sample after another with numpy, segments in memory")
    print(f"peak: {MEMORY_KIND} of the process, imports of torch and transformers included")
    print()
