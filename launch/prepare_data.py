"""Turn raw text into a tokenizer and a corpus of token shards.

    python launch/prepare_data.py --config launch/recipes/corpus_en.yaml [key.path=value ...]

makes `tokenizer.path` unless it exists, then `corpus.path`, which appears only when it is complete.
With --verify, --show, --documents or --stats it makes nothing and looks at the corpus that is
there.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    from data_prep.config.schema import CorpusRecipe
    from data_prep.corpus.inspection import readable_documents, verify_corpus
    from data_prep.corpus.shards import Corpus
    from data_prep.pipeline.build import build_corpus, merge_corpus, run_array_task
    from data_prep.pipeline.preview import preview_documents
    from data_prep.readers.listing import list_sources
    from data_prep.tokenizers.build import ensure_tokenizer
    from launch.command_line.errors import run_command
    from launch.command_line.recipe import read_recipe, recipe_parser

_COMMON_KEYS = (
    "input.path input.kind input.language tokenizer.path tokenizer.vocab_size corpus.path "
    "corpus.validation_share workers"
)
_SHOWN_ROW_TOKENS, _DRAWN_ROW_TOKENS = 128, (128, 512)
_SHORT_SHARE = 0.1  # the default of a run's samples.short_share


def main() -> None:
    """Build, verify or show a corpus, as the command line says."""
    arguments = _parse()
    if arguments.errors:
        arguments.overrides.append(f"input.errors={arguments.errors}")
    recipe = read_recipe(CorpusRecipe, arguments)
    if arguments.verify:
        _print_verified(recipe)
    if arguments.documents:
        _print_documents(recipe, arguments.documents)
    if arguments.show:
        _print_samples(recipe, arguments.show, arguments.row_tokens)
    if arguments.stats:
        _print_statistics(recipe, arguments.out, arguments.row_tokens)
    looks = arguments.verify or arguments.documents or arguments.show or arguments.stats
    if arguments.tokenizer:
        ensure_tokenizer(recipe, list_sources(recipe.corpora))
    elif arguments.task is not None:
        run_array_task(recipe, arguments.task, arguments.of)
    elif arguments.merge:
        merge_corpus(recipe)
    elif not looks:
        build_corpus(recipe)


def _parse() -> argparse.Namespace:
    parser = recipe_parser(__doc__, CorpusRecipe, _COMMON_KEYS, "corpus_en.yaml")
    parser.usage = "%(prog)s --config RECIPE [options] [key.path=value ...]"
    parser.add_argument("--tokenizer", action="store_true", help="make the tokenizer alone")
    parser.add_argument(
        "--task", type=int, metavar="K", help="with --of N: make share K of N, counted from 0"
    )
    parser.add_argument("--of", type=int, default=1, metavar="N", help="shares in all")
    parser.add_argument(
        "--merge", action="store_true", help="make the corpus of what all shares have left"
    )
    parser.add_argument(
        "--verify", action="store_true", help="check every hash, offset and id of the corpus"
    )
    parser.add_argument(
        "--show", type=int, default=0, metavar="N", help="print N training samples, masks and all"
    )
    parser.add_argument(
        "--documents",
        type=int,
        default=0,
        metavar="N",
        help="print N documents of the corpus, or of the input",
    )
    parser.add_argument(
        "--stats", action="store_true", help="print lengths and frequencies, and draw them"
    )
    parser.add_argument(
        "--row-tokens", type=int, metavar="T", help="rows for --show (128), --stats (128 and 512)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of the pictures; default: CORPUS-stats"
    )
    parser.add_argument(
        "--errors",
        choices=["strict", "replace"],
        metavar="HOW",
        help="strict or replace: what to do with bytes that are not UTF-8",
    )
    # Overrides may stand before and after options.
    return parser.parse_intermixed_args()


def _print_verified(recipe: CorpusRecipe) -> None:
    manifest = verify_corpus(recipe.corpus.path)
    for name, split in manifest["splits"].items():
        print(
            f"{name:10}  {split['documents']:>12,} documents  {split['sentences']:>12,} sentences  "
            f"{split['tokens']:>14,} tokens"
        )
    print(f"{recipe.corpus.path} is whole: {len(manifest['files'])} files match their sha256.")


def _print_documents(recipe: CorpusRecipe, count: int) -> None:
    """Print documents of the corpus, or of the input as long as there is no corpus."""
    corpus, tokenizer = recipe.corpus.path, recipe.tokenizer.path
    if corpus.exists():
        documents = readable_documents(corpus, tokenizer, count)
    else:
        documents = preview_documents(recipe, count)
    for text in documents:
        print(text, end="\n\n")


def _print_samples(recipe: CorpusRecipe, count: int, row_tokens: int | None) -> None:
    # Imported here because masks need torch, and preparing a corpus does not.
    from launch.samples import readable_samples

    for text in readable_samples(
        recipe.corpus.path, recipe.tokenizer.path, count, row_tokens or _SHOWN_ROW_TOKENS
    ):
        print(text)


def _print_statistics(recipe: CorpusRecipe, out: Path | None, row_tokens: int | None) -> None:
    from data_prep.samples.statistics import gather_statistics
    from launch.corpus_plots import describe, draw

    path = recipe.corpus.path
    statistics = gather_statistics(
        Corpus.open(path),
        (row_tokens,) if row_tokens else _DRAWN_ROW_TOKENS,
        pairs="next_sentence",
        short_share=_SHORT_SHARE,
    )
    print(describe(statistics))
    for picture in draw(statistics, out or path.with_name(f"{path.name}-stats")):
        print(picture)


if __name__ == "__main__":
    run_command(main)
