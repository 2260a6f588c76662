"""What is wrong with a recipe as a whole, found before any work is spent."""

from pathlib import Path

from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.filters.plugins import load_plugin
from data_prep.readers.storage.names import matches

# Names of files that a build writes into its two folders.
_WRITTEN = ("tokenizer.json", "vocab.txt", "manifest.json", "train_00000_000.tokens.bin")


def check_recipe(recipe: CorpusRecipe) -> None:
    """Load the functions that a recipe names, and compare its output with its input folders.

    Raises:
        UserError: for a function that cannot be loaded, and for a corpus or tokenizer inside an
            input folder, which the next command would read as text.
    """
    if recipe.clean.keep:
        load_plugin(recipe.clean.keep, "clean.keep")
    for options in recipe.corpora.values():
        if options.sentences:
            load_plugin(options.sentences, "input.sentences")
        for root in options.roots:
            if isinstance(root, Path) and any(matches(name, options.pattern) for name in _WRITTEN):
                _refuse_output_inside(root, recipe)


def _refuse_output_inside(root: Path, recipe: CorpusRecipe) -> None:
    outputs = {"corpus.path": recipe.corpus.path, "tokenizer.path": recipe.tokenizer.path}
    for key, output in outputs.items():
        if root.is_dir() and output.resolve().is_relative_to(root.resolve()):
            raise UserError(
                f"{key} {output} lies in the input folder {root}, and would be read as text by the "
                f"next command: choose another {key}, or set input.pattern."
            )
