"""The schema of corpus recipes: validation, and the facts for the manifest."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from data_prep.config.loader import load_recipe
from data_prep.config.schema import CorpusRecipe, InputOptions
from data_prep.config.tokenizer import TokenizerOptions
from data_prep.errors import UserError

RecipeFor = Callable[..., CorpusRecipe]
RECIPES = Path(__file__).parents[3] / "launch" / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*corpus*.yaml")), ids=lambda path: path.stem)
def test_shipped_corpus_recipe_names_command(path: Path) -> None:
    """Every shipped corpus recipe is valid and contains the command that runs it."""
    recipe = load_recipe(CorpusRecipe, path)
    assert recipe.tokenizer.path.parent == recipe.corpus.path.parent
    assert f"prepare_data.py --config launch/recipes/{path.name}" in path.read_text("utf-8")


@pytest.mark.parametrize("keys", [{}, {"path": "a", "paths": ["b"]}])
def test_input_takes_one_source(keys: dict[str, object]) -> None:
    """An input has exactly one of `path`, `paths` and `dataset`."""
    with pytest.raises(ValidationError, match=r"one of path, paths and dataset"):
        InputOptions.model_validate(keys)


def test_paths_keep_given_order() -> None:
    """Several paths are read in the order given."""
    options = InputOptions.model_validate({"paths": ["b", "a"]})
    assert options.roots == (Path("b"), Path("a"))


def test_existing_tokenizer_requires_vocabulary() -> None:
    """The tokenizer kind `existing` requires the folder to copy."""
    with pytest.raises(ValidationError, match=r"needs tokenizer\.vocabulary"):
        TokenizerOptions(path=Path("t"), kind="existing")


def test_value_out_of_range_names_key(tmp_path: Path) -> None:
    """A value out of range is refused with its key, a misspelt key with the nearest one."""
    path = tmp_path / "r.yaml"
    path.write_text("input: {path: x}\ntokenizer: {path: t}\ncorpus: {path: c}\n")
    with pytest.raises(UserError, match=r"corpus\.validation_share is 1\.5 .* less than 1"):
        load_recipe(CorpusRecipe, path, ["corpus.validation_share=1.5"])
    with pytest.raises(UserError, match=r"did you mean 'tokenizer\.vocab_size'"):
        load_recipe(CorpusRecipe, path, ["tokenizer.vocabsize=5"])


def test_facts_exclude_paths_and_workers(recipe_for: RecipeFor) -> None:
    """The facts of the manifest depend on options, not on paths or the number of workers."""
    facts = recipe_for(Path("x")).facts()
    elsewhere = recipe_for(Path("y"), corpus__path="z", tokenizer__path="t", workers=7)
    assert facts == elsewhere.facts()
    assert facts != recipe_for(Path("x"), seed=1).facts()
    assert facts != recipe_for(Path("x"), input__errors="replace").facts()
