"""Duplicates are found anywhere in the input, and the first in reading order is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import Corpus
from data_prep.counter_rng import integers_below, key_of
from data_prep.dedup import exact as exact_module
from data_prep.pipeline.build import build_corpus
from data_prep.readers import listing as listing_module
from data_prep.tokenizers.folder import load_tokenizer

RecipeFor = Callable[..., CorpusRecipe]
NUMBERS = "zero one two three four five six seven eight nine".split()


def paragraph_of(number: int) -> str:
    """Return a sentence that no other number has."""
    return f"this is {' '.join(NUMBERS[int(digit)] for digit in str(number))}."


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[list[str]]]:
    """Return a folder of 400 documents in several tasks, and their paragraphs; many are copies."""
    monkeypatch.setattr(listing_module, "SLICE_BYTES", 3_000)
    monkeypatch.setattr(exact_module, "_KEYS_AT_ONCE", 90)
    numbers = integers_below(key_of("copies"), range(400 * 2), 300).reshape(400, 2).tolist()
    documents = [[paragraph_of(number) for number in sorted(set(pair))] for pair in numbers]
    documents += documents[::7]
    folder = tmp_path / "text"
    folder.mkdir()
    for start in range(0, len(documents), 50):
        blocks = ["\n".join(document) for document in documents[start : start + 50]]
        (folder / f"{start:04d}.txt").write_text("\n\n".join(blocks) + "\n")
    return folder, documents


def corpus_of(recipe_for: RecipeFor, folder: Path, **changes: Any) -> tuple[list[str], Any]:
    """Return the sentences that a corpus holds, in its order by split, and its manifest."""
    recipe = recipe_for(folder, input__newline="paragraph", corpus__validation_share=0.2, **changes)
    manifest = build_corpus(recipe)
    backend = load_tokenizer(recipe.tokenizer.path).backend
    found = []
    for split in ("train", "validation"):
        corpus = Corpus.open(recipe.corpus.path, split)
        for index in range(corpus.num_documents):
            ids = [sentence.tolist() for sentence in corpus.document(index)]
            found.append(" / ".join(backend.decode(sentence) for sentence in ids))
    return found, manifest


def readable(documents: list[list[str]]) -> list[str]:
    return [" / ".join(document) for document in documents]


def test_first_duplicate_document_is_kept(
    recipe_for: RecipeFor, drawn: tuple[Path, list[list[str]]]
) -> None:
    """Of equal documents the first in reading order is kept."""
    folder, documents = drawn
    found, manifest = corpus_of(recipe_for, folder)
    first = list(dict.fromkeys(readable(documents)))
    assert sorted(found) == sorted(first) and len(first) < len(documents)
    assert manifest["dropped"] == {"duplicates": len(documents) - len(first)}
    train = manifest["splits"]["train"]["documents"]
    assert found[:train] == [document for document in first if document in set(found[:train])]


def test_first_duplicate_paragraph_is_kept(
    recipe_for: RecipeFor, drawn: tuple[Path, list[list[str]]]
) -> None:
    """Of equal paragraphs the first in reading order is kept."""
    folder, documents = drawn
    found, manifest = corpus_of(recipe_for, folder, clean__duplicates="paragraphs")
    seen: set[str] = set()
    expected = []
    for document in documents:
        left = [p for p in document if not (p in seen or seen.add(p))]  # type: ignore[func-returns-value]
        expected += [" / ".join(left)] if left else []
    assert sorted(found) == sorted(expected)
    assert manifest["dropped"]["duplicates"] == len(documents) - len(expected)
    assert manifest["dropped"]["duplicate_paragraphs"] == sum(map(len, documents)) - len(seen)


def test_dropped_document_paragraphs_do_not_count(
    recipe_for: RecipeFor, drawn: tuple[Path, list[list[str]]]
) -> None:
    """A paragraph of a dropped document does not count as the first of its copies."""
    folder, documents = drawn
    found, _manifest = corpus_of(recipe_for, folder, clean__duplicates="both")
    paragraphs = [paragraph for document in found for paragraph in document.split(" / ")]
    assert len(paragraphs) == len(set(paragraphs))
    assert set(paragraphs) == {paragraph for document in documents for paragraph in document}


def test_duplicates_keep_keeps_all(
    recipe_for: RecipeFor, drawn: tuple[Path, list[list[str]]]
) -> None:
    """With `clean.duplicates=keep` every copy is kept."""
    folder, documents = drawn
    found, manifest = corpus_of(recipe_for, folder, clean__duplicates="keep")
    assert sorted(found) == sorted(readable(documents)) and manifest["dropped"] == {}


def test_near_duplicate_documents_are_dropped(recipe_for: RecipeFor, tmp_path: Path) -> None:
    """Near-duplicates of an earlier document are dropped."""
    words = [paragraph_of(number)[8:-1] for number in range(1000, 1400)]
    long = " ".join(words[:80]) + "."
    near = long.replace("zero", "nought", 1)
    others = [" ".join(words[start : start + 60]) + "." for start in range(100, 340, 60)]
    (tmp_path / "text.txt").write_text("\n\n".join([long, *others, near, long]) + "\n")
    recipe = recipe_for(
        tmp_path / "text.txt", clean__near_duplicates=0.8, corpus__validation_share=0.4
    )
    manifest = build_corpus(recipe)
    assert manifest["dropped"] == {"duplicates": 1, "near_duplicates": 1}
    assert sum(split["documents"] for split in manifest["splits"].values()) == 5


@pytest.mark.parametrize("workers", [1, 3])
def test_dropped_duplicates_ignore_workers(
    recipe_for: RecipeFor, drawn: tuple[Path, list[list[str]]], workers: int
) -> None:
    """The dropped duplicates do not depend on the number of workers."""
    folder, _ = drawn
    other, manifest = corpus_of(
        recipe_for, folder, workers=workers, clean__duplicates="both", clean__near_duplicates=0.7
    )
    again = build_corpus(
        recipe_for(
            folder,
            workers=2,
            input__newline="paragraph",
            corpus__validation_share=0.2,
            clean__duplicates="both",
            clean__near_duplicates=0.7,
            corpus__path=folder.parent / "again",
        )
    )
    assert manifest == again and other
