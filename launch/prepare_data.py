"""Turn raw text into a tokenizer and a corpus of token shards.

    python launch/prepare_data.py --config launch/recipes/corpus_en.yaml [key.path=value ...]

makes `tokenizer.path` unless it exists, then `corpus.path`, which appears only when it is complete.
With --verify or --show it makes nothing and looks at the corpus that is there.
"""

import argparse
import sys

try:
    from data_prep.build import build_corpus, merge_corpus, run_array_task
    from data_prep.inspection import readable_documents, verify_corpus
    from data_prep.options import CorpusRecipe
    from data_prep.recipe import describe_keys, load_recipe
    from data_prep.sources import list_sources
    from data_prep.vocabulary import ensure_tokenizer
    from launch.cli import recipe_parser, run_command
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("data_prep", "launch"):
        raise
    print("error: Stillhouse is not installed here: run `pip install -e .` first.", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Build, verify or show a corpus, as the command line says."""
    arguments = _parse()
    overrides = list(arguments.overrides)
    if arguments.errors:
        overrides.append(f"input.errors={arguments.errors}")
    recipe = load_recipe(CorpusRecipe, arguments.config, overrides)
    if arguments.verify:
        _print_verified(recipe)
    if arguments.show:
        for text in readable_documents(recipe.corpus.path, recipe.tokenizer.path, arguments.show):
            print(text, end="\n\n")
    if arguments.tokenizer:
        ensure_tokenizer(recipe, list_sources(recipe.corpora))
    elif arguments.task is not None:
        run_array_task(recipe, arguments.task, arguments.of)
    elif arguments.merge:
        merge_corpus(recipe)
    elif not arguments.verify and not arguments.show:
        build_corpus(recipe)


def _parse() -> argparse.Namespace:
    keys = f"keys of a recipe, with their defaults:\n{describe_keys(CorpusRecipe)}"
    parser = recipe_parser(__doc__, keys)
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
        "--show", type=int, default=0, metavar="N", help="print the first N documents as text"
    )
    parser.add_argument(
        "--errors", choices=["strict", "replace"], help="what to do with bytes that are not UTF-8"
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


if __name__ == "__main__":
    run_command(main)
