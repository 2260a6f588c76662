"""The tokenizer of a recipe: made once, and refused if the options differ."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.readers import listing as listing_module
from data_prep.readers.listing import list_sources
from data_prep.tokenizers.build import ensure_tokenizer, sample_texts
from data_prep.tokenizers.folder import BERT_NAMES, load_tokenizer, save_tokenizer
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer

Prose = Callable[[str, int], str]
RecipeFor = Callable[..., CorpusRecipe]


@pytest.fixture
def text(tmp_path: Path, prose: Prose) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(prose("vocabulary", 40), "utf-8")
    return path


def test_tokenizer_is_made_once(recipe_for: RecipeFor, text: Path) -> None:
    """A tokenizer is made once and then loaded."""
    recipe = recipe_for(text)
    made = ensure_tokenizer(recipe, list_sources(recipe.corpora))
    text.write_text("quite other words. " * 50)
    again = ensure_tokenizer(recipe, list_sources(recipe.corpora))
    assert again.fingerprint == made.fingerprint and made.vocab_size <= 200
    assert not list(text.parent.glob("*.partial"))


@pytest.mark.parametrize(
    ("key", "value"), [("vocab_size", 300), ("lowercase", False), ("alphabet", 7)]
)
def test_changed_tokenizer_options_are_refused(
    recipe_for: RecipeFor, text: Path, key: str, value: object
) -> None:
    """A tokenizer made with other options is refused."""
    recipe = recipe_for(text)
    ensure_tokenizer(recipe, list_sources(recipe.corpora))
    changed = recipe_for(text, **{f"tokenizer__{key}": value})
    with pytest.raises(UserError, match=rf"made with {key} .* but tokenizer\.{key} is {value}"):
        ensure_tokenizer(changed, list_sources(changed.corpora))


def test_vocabulary_file_is_used(recipe_for: RecipeFor, text: Path) -> None:
    """A given vocab.txt is used."""
    vocabulary = text.parent / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL_TOKENS, "the", "river"]) + "\n")
    recipe = recipe_for(text, tokenizer__vocabulary=vocabulary)
    tokenizer = ensure_tokenizer(recipe, list_sources(recipe.corpora))
    assert tokenizer.vocab_size == 7 and tokenizer.backend.token_to_id("river") == 6


def test_existing_folder_keeps_special_tokens(recipe_for: RecipeFor, text: Path) -> None:
    """An existing folder is used with its own special tokens."""
    theirs = bert_tokenizer({t: i for i, t in enumerate(("the", *SPECIAL_TOKENS))}, True)
    save_tokenizer(theirs, text.parent / "theirs", "existing", names=BERT_NAMES)
    recipe = recipe_for(
        text, tokenizer__kind="existing", tokenizer__vocabulary=text.parent / "theirs"
    )
    tokenizer = ensure_tokenizer(recipe, list_sources(recipe.corpora))
    assert tokenizer.pad_id == 1 and tokenizer.mask_id == 5
    assert tokenizer.fingerprint == load_tokenizer(text.parent / "theirs").fingerprint


def test_existing_cased_tokenizer_stays_cased(recipe_for: RecipeFor, text: Path) -> None:
    """An existing cased tokenizer stays cased whatever the recipe has."""
    theirs = bert_tokenizer({t: i for i, t in enumerate((*SPECIAL_TOKENS, "A", "a"))}, False)
    save_tokenizer(theirs, text.parent / "theirs", "existing")
    recipe = recipe_for(
        text, tokenizer__kind="existing", tokenizer__vocabulary=text.parent / "theirs"
    )
    ours = ensure_tokenizer(recipe, list_sources(recipe.corpora))
    assert ours.backend.encode("A a").ids == [2, 5, 6, 3]
    assert AutoTokenizer.from_pretrained(recipe.tokenizer.path).encode("A a") == [2, 5, 6, 3]


def test_failed_training_leaves_no_files(recipe_for: RecipeFor, text: Path) -> None:
    """A failed training leaves no files."""
    recipe = recipe_for(text, tokenizer__vocab_size=20)
    with pytest.raises(UserError, match="too small"):
        ensure_tokenizer(recipe, list_sources(recipe.corpora))
    assert list(text.parent.glob("tokenizer*")) == []


def test_training_sample_is_even(
    recipe_for: RecipeFor, tmp_path: Path, prose: Prose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training sample is bounded and even over the input."""
    monkeypatch.setattr(listing_module, "SLICE_BYTES", 20_000)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(prose(name, 300))
    size = sum(path.stat().st_size for path in folder.iterdir())
    recipe = recipe_for(folder, tokenizer__train_bytes=size // 4)
    sources = list_sources(recipe.corpora)
    sample = list(sample_texts(recipe, sources))
    assert sample == list(sample_texts(recipe, sources))
    assert size // 4 <= sum(map(len, sample)) < size // 4 + 20 * 500
    halves = [path.read_text() for path in sorted(folder.iterdir())]
    shares = [sum(len(text) for text in sample if text in half) for half in halves]
    assert 0.8 < shares[0] / shares[1] < 1.25
    late = [text for text in sample if halves[0].find(text) > len(halves[0]) // 2]
    assert late, "the second half of a file is sampled too"
