"""Fixtures of the preparation tests: a small text, slices and recipes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.counter_rng import integers_below, key_of
from data_prep.readers.sources import Slice, Source

WORDS = (
    "the river house king under walked bright morning seldom window quiet garden answered letter "
    "never old stone carried across winter because laughed market ship captain shore"
).split()

RecipeFor = Callable[..., CorpusRecipe]


def make_prose(key: str, documents: int) -> str:
    """Return blank-line-separated documents of 3 to 8 sentences, the same for the same key."""
    blocks = []
    for number in range(documents):
        drawn = integers_below(key_of(key, number), range(200), len(WORDS))
        words = iter(WORDS[index] for index in drawn)
        sentences = [
            " ".join(next(words) for _ in range(4 + index % 5)).capitalize() + "."
            for index in range(3 + number % 6)
        ]
        blocks.append(" ".join(sentences))
    return "\n\n".join(blocks) + "\n"


@pytest.fixture
def prose() -> Callable[[str, int], str]:
    return make_prose


@pytest.fixture
def whole() -> Callable[[Path], Slice]:
    """Return a function that makes one slice of a whole file."""

    def whole_file(path: Path) -> Slice:
        size = path.stat().st_size
        return Slice(Source(path, path.name, size), 0, size)

    return whole_file


@pytest.fixture
def recipe_for(tmp_path: Path) -> RecipeFor:
    """Return a function that makes a small recipe; `group__key=value` replaces a key."""

    def make(path: Path, **changes: Any) -> CorpusRecipe:
        tree: dict[str, Any] = {
            "input": {"path": path},
            "tokenizer": {"path": tmp_path / "tokenizer", "vocab_size": 200},
            "corpus": {"path": tmp_path / "corpus", "validation_share": 0.1},
            "workers": 1,
        }
        for key, value in changes.items():
            *groups, leaf = key.split("__")
            target = tree
            for group in groups:
                target = target.setdefault(group, {})
            target[leaf] = value
        return CorpusRecipe.model_validate(tree)

    return make
