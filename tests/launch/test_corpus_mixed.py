"""The shipped recipe of several corpora: it loads, and reads each of them in its own way."""

import json
from pathlib import Path

import pytest

from data_prep.config.loader import load_recipe
from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import Corpus
from data_prep.pipeline.build import build_corpus
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS
from tests.synthetic_corpora import WORDS

RECIPE = Path("launch/recipes/corpus_mixed.yaml")
ARTICLES = 8


def prose(start: int) -> str:
    """Return two paragraphs of a sentence each, at least 50 characters."""
    words = [WORDS[(start + place) % len(WORDS)] for place in range(12)]
    return " ".join(words[:6]).capitalize() + ".\n\n" + " ".join(words[6:]).capitalize() + "."


@pytest.fixture
def recipe(tmp_path: Path) -> CorpusRecipe:
    """Return the recipe, its paths replaced by those of small corpora of the three kinds."""
    for name in ("wiki", "news", "novels"):
        (tmp_path / name).mkdir()
    articles = [f'<doc title="T{n}">\nT{n}\n\n{prose(n)}\n</doc>\n' for n in range(ARTICLES)]
    (tmp_path / "wiki" / "wiki_00").write_text("".join(articles), encoding="utf-8")
    lines = [json.dumps({"text": prose(20 + n)}) + "\n" for n in range(ARTICLES)]
    (tmp_path / "news" / "wiki_00").write_text("".join(lines), encoding="utf-8")
    for n in range(ARTICLES):
        (tmp_path / "novels" / f"{n}.txt").write_text(prose(40 + n), encoding="utf-8")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL_TOKENS, *WORDS, "."]) + "\n", encoding="utf-8")
    replaced = {f"inputs.{name}.path": tmp_path / name for name in ("wiki", "news", "novels")}
    replaced |= {
        "tokenizer.vocabulary": vocabulary,
        "tokenizer.path": tmp_path / "tokenizer",
        "corpus.path": tmp_path / "corpus",
        "corpus.validation_share": 0.4,
        "workers": 1,
    }
    return load_recipe(CorpusRecipe, RECIPE, [f"{key}={value}" for key, value in replaced.items()])


def test_mixed_recipe_has_three_corpora() -> None:
    """The recipe has three corpora with kinds and weights."""
    corpora = load_recipe(CorpusRecipe, RECIPE).corpora
    assert {name: options.kind for name, options in corpora.items()} == {
        "wiki": "wikiextractor",
        "news": "jsonl",
        "novels": "text",
    }
    assert corpora["novels"].documents == "file"
    assert len({options.weight for options in corpora.values()}) == 3


def test_mixed_recipe_builds_all_corpora(recipe: CorpusRecipe) -> None:
    """The corpus has every document of all three inputs."""
    manifest = build_corpus(recipe)
    documents = sum(split["documents"] for split in manifest["splits"].values())
    assert documents == 3 * ARTICLES
    train = Corpus.open(recipe.corpus.path)
    # Two sentences each: the title is gone, and no novel was cut at its blank line.
    assert train.num_sentences == 2 * train.num_documents
