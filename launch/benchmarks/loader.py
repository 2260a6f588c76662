"""Shards to batches: our loader beside the Hugging Face collators and a plain numpy builder.

Every side runs in one process on one thread and makes batches of the same samples. The collators
and the builder get them in memory, as segments of ids; ours reads its corpus, and packs rows.
"""

import argparse
from pathlib import Path

from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.pipeline.build import build_corpus
from launch.benchmarks import loader_sides
from launch.benchmarks.driver import MEMORY_KIND, Found, ProcessSide, measure_in_turns, row_of
from launch.benchmarks.loader_sides import (
    COLLATOR,
    LIMIT,
    NUMPY_PAIRS,
    UNIFORM,
    WHOLE_WORD,
    WHOLE_WORD_COLLATOR,
)
from launch.benchmarks.report import Row, compare

_AGAINST = {UNIFORM: (COLLATOR, NUMPY_PAIRS, LIMIT), WHOLE_WORD: (WHOLE_WORD_COLLATOR, LIMIT)}
_VARIABLES = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


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
    job = {
        "corpus": str(arguments.corpus),
        "tokenizer": str(arguments.tokenizer),
        "plans": str(scratch / "plans"),
        "row_tokens": arguments.row_tokens,
        "rows": arguments.rows,
        "steps": arguments.steps,
    }
    sides = [
        ProcessSide(
            name=name, module=loader_sides.__name__, job=job, variables=_VARIABLES, scratch=scratch
        )
        for name in loader_sides.SIDES
    ]
    found = measure_in_turns(sides, arguments.repeat)
    _print_terms(arguments)
    return rows_of(found)


def rows_of(found: Found) -> list[Row]:
    """Return the rows of all sides, ours last, with their ratios to the others."""
    rows = [
        row_of(name, "tokens/s", runs, lambda run: run.result["tokens"] / run.result["seconds"])
        for name, runs in found.items()
    ]
    return compare(rows, _AGAINST)


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


def _print_terms(arguments: argparse.Namespace) -> None:
    """Print what is compared with what."""
    print(f"""\
{arguments.steps} batches of {arguments.rows} rows of {arguments.row_tokens} tokens, \
{arguments.repeat} round(s) in turns; one process, one thread; real tokens only
{LIMIT}: gathers the same segments and draws keyed masks, and assembles nothing
{COLLATOR}: DataCollatorForLanguageModeling, ids in memory, padded to the longest
{WHOLE_WORD_COLLATOR}: the same with whole_word_mask=True, padded to a row
{NUMPY_PAIRS}: one sample after another with numpy, segments in memory
peak: {MEMORY_KIND} of the process, imports of torch and transformers included
""")
