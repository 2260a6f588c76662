"""The files of a corpus and of a tokenizer have the permissions that the umask gives."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import Corpus
from data_prep.pipeline.build import build_corpus
from data_prep.samples.epoch_index import EpochIndexKey, open_epoch_index

Prose = Callable[[str, int], str]
RecipeFor = Callable[..., CorpusRecipe]


@pytest.fixture(params=[0o022, 0o027, 0o002], ids=["022", "027", "002"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set a umask for the test, and return it."""
    mask: int = request.param
    previous = os.umask(mask)
    yield mask
    os.umask(previous)


def modes_below(folder: Path) -> dict[str, int]:
    """Return the permissions of a folder and of everything in it."""
    paths = [folder, *folder.rglob("*")]
    return {
        path.relative_to(folder.parent).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in paths
    }


def expected_modes(folder: Path, umask: int) -> dict[str, int]:
    """Return the permissions that the umask gives to all of them."""
    return {
        path.relative_to(folder.parent).as_posix(): (0o777 if path.is_dir() else 0o666) & ~umask
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("kind", "vocab_size"), [("wordpiece", 120), ("unigram", 50)])
def test_prepared_files_follow_umask(
    umask: int,
    kind: str,
    vocab_size: int,
    workers: int,
    tmp_path: Path,
    prose: Prose,
    recipe_for: RecipeFor,
) -> None:
    """Every file is 0666 and every folder 0777 without the bits of the umask."""
    text = tmp_path / "text"
    text.mkdir()
    for name in ("a.txt", "b.txt"):
        (text / name).write_text(prose("a.txt", 30) if name == "b.txt" else prose(name, 60))
    recipe = recipe_for(
        text, workers=workers, tokenizer__kind=kind, tokenizer__vocab_size=vocab_size,
        clean__duplicates="both", tokenizer__path=tmp_path / "made" / "tokenizer",
        corpus__path=tmp_path / "made" / "corpus",
    )  # fmt: skip
    assert build_corpus(recipe)["dropped"], "some shards are rewritten without duplicates"
    made = tmp_path / "made"
    assert len(modes_below(made)) > 8
    assert modes_below(made) == expected_modes(made, umask)


def test_epoch_index_follows_umask(
    umask: int, tmp_path: Path, prose: Prose, recipe_for: RecipeFor
) -> None:
    """The cached epoch index can be shared like the corpus that it belongs to."""
    (tmp_path / "text.txt").write_text(prose("text", 30))
    recipe = recipe_for(tmp_path / "text.txt")
    build_corpus(recipe)
    key = EpochIndexKey(seed=0, epoch=0, row_tokens=64)
    open_epoch_index(Corpus.open(recipe.corpus.path), key, tmp_path / "plans")
    assert modes_below(tmp_path / "plans") == expected_modes(tmp_path / "plans", umask)
