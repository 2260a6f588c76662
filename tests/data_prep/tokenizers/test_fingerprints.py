"""The fingerprint of a tokenizer is of what it does, and older fingerprints stay valid."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.inspection import open_with_tokenizer
from data_prep.manifest import describe_files, fingerprint
from data_prep.pipeline.build import build_corpus
from data_prep.tokenizers.folder import load_tokenizer, read_tokenizer, save_tokenizer
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer

VOCABULARY = {token: index for index, token in enumerate([*SPECIAL_TOKENS, "a", "b", "##c"])}
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tokenizer(bert_tokenizer(VOCABULARY, True), tmp_path / "tokenizer", "wordpiece")
    return tmp_path / "tokenizer"


def changed(folder: Path, change: Change) -> str:
    """Return the fingerprint after a change of tokenizer.json."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=7), "utf-8")
    return read_tokenizer(folder).fingerprint


def reverse_keys(content: dict[str, Any]) -> None:
    for key in reversed(list(content)):
        content[key] = content.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        reverse_keys,
        lambda content: content.update(decoder=None),
        lambda content: content.update(post_processor=None),
        lambda content: content.update(
            truncation={
                "direction": "Right",
                "max_length": 8,
                "strategy": "LongestFirst",
                "stride": 0,
            }
        ),
        lambda content: content["normalizer"].update(strip_accents=True),
        lambda content: content["model"].pop("type"),
    ],
)
def test_same_behaviour_has_same_fingerprint(folder: Path, change: Change) -> None:
    """Whatever does not change the ids of text does not change the fingerprint."""
    before = read_tokenizer(folder).fingerprint
    assert changed(folder, change) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["normalizer"].update(strip_accents=False),
        lambda content: content["normalizer"].update(lowercase=False),
        lambda content: content["model"].update(max_input_chars_per_word=99),
        lambda content: content["model"]["vocab"].update(d=8),
        lambda content: content["model"]["vocab"].update(a=6, b=5),
    ],
)
def test_other_behaviour_has_other_fingerprint(folder: Path, change: Change) -> None:
    """Settings, tokens and ids are part of the fingerprint."""
    before = read_tokenizer(folder).fingerprint
    assert changed(folder, change) != before


def test_merges_and_roles_are_part(tmp_path: Path) -> None:
    """So are the merges of a BPE, and which token has which role."""
    found = set()
    tokens = [*SPECIAL_TOKENS, "a", "b", "ab", "ba"]
    for merges, last in (([("a", "b")], "[MASK]"), ([("b", "a")], "[MASK]"), ([("a", "b")], "a")):
        model = models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="[UNK]")
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        names = dict(zip(("pad", "unk", "cls", "sep"), SPECIAL_TOKENS, strict=False))
        directory = tmp_path / str(len(found))
        save_tokenizer(tokenizer, directory, "existing", names={**names, "mask": last})
        found.add(load_tokenizer(directory).fingerprint)
    assert len(found) == 3


def test_scores_survive_copies(tmp_path: Path) -> None:
    """Scores that the library reads with an error in the last bit leave the fingerprint alone."""
    scores = [-1 / (index + 3) for index in range(500)]
    pieces = [(token, 0.0) for token in SPECIAL_TOKENS]
    pieces += [(f"w{index}", score) for index, score in enumerate(scores)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=1))
    found = set()
    for index in range(4):
        save_tokenizer(backend, tmp_path / str(index), "existing")
        loaded = load_tokenizer(tmp_path / str(index))
        found.add(loaded.fingerprint)
        backend = loaded.backend
    assert len(found) == 1


def state_earlier_fingerprint(folder: Path) -> str:
    """Give a folder the manifest of an earlier version, and return its fingerprint."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["fingerprint"] = fingerprint(json.loads((folder / "tokenizer.json").read_text()))
    manifest["files"] = describe_files(folder, manifest["files"])
    path.write_text(json.dumps(manifest))
    return str(manifest["fingerprint"])


def test_earlier_folder_keeps_fingerprint(folder: Path) -> None:
    """A folder that was made by an earlier version keeps what runs and corpora have recorded."""
    present = load_tokenizer(folder).fingerprint
    earlier = state_earlier_fingerprint(folder)
    loaded = load_tokenizer(folder)
    assert loaded.fingerprint == earlier != present
    assert loaded.is_recorded_as(earlier) and loaded.is_recorded_as(present)
    assert not loaded.is_recorded_as("0" * 16)
    # An export has no manifest.
    assert read_tokenizer(folder).is_recorded_as(earlier)


def test_corpus_of_earlier_folder_is_up_to_date(
    recipe_for: Callable[..., CorpusRecipe],
    prose: Callable[[str, int], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A corpus of an earlier version stays valid with a newly made tokenizer."""
    (tmp_path / "text.txt").write_text(prose("earlier", 60))
    recipe = recipe_for(tmp_path / "text.txt")
    build_corpus(recipe)
    path = recipe.corpus.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tokenizer"] = fingerprint(
        json.loads((recipe.tokenizer.path / "tokenizer.json").read_text())
    )
    path.write_text(json.dumps(manifest))
    build_corpus(recipe)
    assert "is up to date" in capsys.readouterr().err
    corpus, tokenizer = open_with_tokenizer(recipe.corpus.path, recipe.tokenizer.path)
    assert corpus.tokenizer_fingerprint != tokenizer.fingerprint
