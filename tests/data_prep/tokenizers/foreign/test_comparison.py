"""A model of another tokenizer than the corpus's is refused, and the message says what differs."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from data_prep.tokenizers.foreign.comparison import check_model_tokenizer, open_model_tokenizer


@pytest.fixture
def corpus(tiny_tokenizer: Path) -> LoadedTokenizer:
    """Return the tokenizer of a corpus."""
    return load_tokenizer(tiny_tokenizer)


@pytest.fixture
def model(tmp_path: Path, tiny_tokenizer: Path) -> Path:
    """Return the folder of a model with a copy of that tokenizer."""
    shutil.copytree(tiny_tokenizer, tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()
    return tmp_path / "model"


def edit(model: Path, **changes: object) -> None:
    """Change keys of the model's tokenizer_config.json, which decides in transformers."""
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


def test_copy_is_the_same(model: Path, corpus: LoadedTokenizer) -> None:
    """The same tokenizer in another folder is accepted, whatever its settings of length are."""
    edit(model, model_max_length=64, padding_side="left")
    check_model_tokenizer(model, "", corpus)
    assert open_model_tokenizer(model).fingerprint == corpus.fingerprint


def test_stated_fingerprint_needs_no_files(tmp_path: Path, corpus: LoadedTokenizer) -> None:
    """A run that recorded the corpus's tokenizer is accepted without opening its copy."""
    check_model_tokenizer(tmp_path / "nothing", corpus.fingerprint, corpus)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"do_lower_case": False}, "tokenizer.lowercase is false there and true here"),
        ({"strip_accents": False}, "tokenizer.strip_accents is false there and true here"),
        ({"tokenize_chinese_chars": False}, "'漢字' becomes .* there and .* here"),
    ],
)
def test_settings_are_named(
    model: Path, corpus: LoadedTokenizer, changes: dict[str, object], difference: str
) -> None:
    """A setting that differs is named as the recipe has it."""
    edit(model, **changes)
    with pytest.raises(UserError, match=rf"{difference}.* tokenizer.vocabulary={model}"):
        check_model_tokenizer(model, "", corpus)


def test_vocabularies_are_compared(model: Path, corpus: LoadedTokenizer) -> None:
    """The first id of another token is named, and so is another number of tokens."""
    vocabulary = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (model / "tokenizer.json").unlink()
    swapped = [*vocabulary[:-2], vocabulary[-1], vocabulary[-2]]
    (model / "vocab.txt").write_text("\n".join(swapped) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"its id {len(vocabulary) - 2} is {vocabulary[-1]!r}"):
        check_model_tokenizer(model, "", corpus)
    (model / "vocab.txt").write_text("\n".join(vocabulary[:-1]) + "\n", encoding="utf-8")
    smaller = f"vocabulary size is {len(vocabulary) - 1} there and {len(vocabulary)} here"
    with pytest.raises(UserError, match=smaller):
        check_model_tokenizer(model, "", corpus)


def test_special_ids_are_compared(model: Path, corpus: LoadedTokenizer) -> None:
    """Another token in a role is named by the role and both ids."""
    other = dataclasses.replace(
        corpus, mask_id=corpus.mask_id + 1, fingerprint="f" * 16, other_fingerprints=frozenset()
    )
    with pytest.raises(UserError, match=f"its mask token is {corpus.mask_id} there and"):
        check_model_tokenizer(model, "", other)
