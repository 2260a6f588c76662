"""Inspection: verification of a corpus, and its documents as text."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.inspection import readable_documents, verify_corpus
from data_prep.errors import UserError
from data_prep.manifest import file_sha256
from data_prep.pipeline.build import build_corpus

RecipeFor = Callable[..., CorpusRecipe]


@pytest.fixture
def recipe(tmp_path: Path, prose: Callable[[str, int], str], recipe_for: RecipeFor) -> CorpusRecipe:
    (tmp_path / "text.txt").write_text(prose("inspection", 20), "utf-8")
    recipe = recipe_for(tmp_path / "text.txt")
    build_corpus(recipe)
    return recipe


def rewrite(path: Path, position: int, value: int) -> None:
    """Change one number of a shard file and make the manifest agree, as a bad writer would."""
    numbers = np.fromfile(path, "<u2" if "tokens" in path.name else "<u8")
    numbers[position] = value
    numbers.tofile(path)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["files"][path.name]["sha256"] = file_sha256(path)
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


def test_verify_accepts_complete_corpus(recipe: CorpusRecipe) -> None:
    """A complete corpus verifies."""
    assert verify_corpus(recipe.corpus.path)["splits"]["train"]["documents"] > 10


def test_verify_finds_changed_byte(recipe: CorpusRecipe) -> None:
    """One changed byte is found and its file named."""
    path = recipe.corpus.path / "train_00000_000.tokens.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train_00000_000\.tokens\.bin have changed"):
        verify_corpus(recipe.corpus.path)


@pytest.mark.parametrize(
    ("file", "position", "value", "message"),
    [
        ("sentences", 3, 0, "sentence offsets do not ascend"),
        ("documents", 0, 1, "document offsets run from 1"),
        ("documents", -1, 9999, "document offsets run from 0 to 9999 instead of"),
        ("tokens", 5, 60_000, "token id 60000 is outside the vocabulary"),
    ],
)
def test_verify_finds_inconsistent_offsets(
    recipe: CorpusRecipe, file: str, position: int, value: int, message: str
) -> None:
    """Invalid offsets and ids are found even when the hashes agree."""
    rewrite(recipe.corpus.path / f"train_00000_000.{file}.bin", position, value)
    with pytest.raises(UserError, match=rf"train_00000_000 .*{message}"):
        verify_corpus(recipe.corpus.path)


def test_readable_documents_list_sentences(recipe: CorpusRecipe) -> None:
    """Documents are shown with one sentence a line and its number of tokens."""
    shown = list(readable_documents(recipe.corpus.path, recipe.tokenizer.path, 2))
    head, *lines = shown[0].splitlines()
    counts = [int(line[:6]) for line in lines]
    assert len(shown) == 2 and head == f"document 0: {len(lines)} sentences, {sum(counts)} tokens"
    assert all(line.endswith(".") and line[8:].count(" ") >= 3 for line in lines)


def test_readable_documents_refuse_other_tokenizer(
    recipe: CorpusRecipe, recipe_for: RecipeFor, tmp_path: Path
) -> None:
    """A corpus is not decoded with a tokenizer that did not make it."""
    other = recipe_for(
        tmp_path / "text.txt",
        tokenizer__path=tmp_path / "other",
        tokenizer__lowercase=False,
        corpus__path=tmp_path / "other_corpus",
    )
    build_corpus(other)
    with pytest.raises(UserError, match="was made with the tokenizer"):
        list(readable_documents(recipe.corpus.path, other.tokenizer.path, 1))
