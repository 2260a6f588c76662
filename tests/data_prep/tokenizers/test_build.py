"""The tokenizer of a recipe: made once, and refused if the options differ."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from transformers import AutoTokenizer

from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.pipeline import build as build_module
from data_prep.pipeline.build import build_corpus
from data_prep.readers import listing as listing_module
from data_prep.readers.listing import list_sources
from data_prep.tokenizers.build import ensure_tokenizer, sample_texts
from data_prep.tokenizers.folder import BERT_NAMES, load_tokenizer, save_tokenizer
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer
from tests.hub_server import serve_hub

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


@pytest.mark.parametrize("name", ["folder", "folder/tokenizer.json", "folder/vocab.txt"])
@pytest.mark.parametrize("kind", ["wordpiece", "existing"])
def test_vocabulary_decides_kind(recipe_for: RecipeFor, text: Path, name: str, kind: str) -> None:
    """`tokenizer.vocabulary` takes a folder, a tokenizer.json or a vocab.txt, whatever the kind."""
    theirs = bert_tokenizer({t: i for i, t in enumerate((*SPECIAL_TOKENS, "river", "the"))}, True)
    save_tokenizer(theirs, text.parent / "folder", "wordpiece")
    recipe = recipe_for(
        text,
        tokenizer__kind=kind,
        tokenizer__vocabulary=text.parent / name,
        tokenizer__lowercase=True,
    )
    made = ensure_tokenizer(recipe, list_sources(recipe.corpora))
    assert made.backend.encode("The river", add_special_tokens=False).ids == [6, 5]
    again = ensure_tokenizer(recipe, list_sources(recipe.corpora))
    assert again.fingerprint == made.fingerprint and made.made_now and not again.made_now


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("none.txt", "wordpiece", "There is no vocabulary .*none.txt"),
        ("empty", "wordpiece", r"empty has no tokenizer\.json and no vocabulary"),
        ("text.txt", "unigram", "does not fit tokenizer.kind unigram"),
    ],
)
def test_unfit_vocabulary_is_refused(
    recipe_for: RecipeFor, text: Path, name: str, kind: str, message: str
) -> None:
    """A vocabulary that is missing, or beside a kind that is trained, is refused."""
    (text.parent / "empty").mkdir()
    recipe = recipe_for(text, tokenizer__kind=kind, tokenizer__vocabulary=text.parent / name)
    with pytest.raises(UserError, match=message):
        ensure_tokenizer(recipe, list_sources(recipe.corpora))
    assert not recipe.tokenizer.path.exists()


def test_made_tokenizer_needs_no_network(
    recipe_for: RecipeFor, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer made of a name on the hub is used again offline, and another name is refused."""
    theirs = text.parent / "served"
    save_tokenizer(bert_tokenizer({t: i for i, t in enumerate(SPECIAL_TOKENS)}, True), theirs, "x")
    recipe = recipe_for(text, tokenizer__vocabulary="org/model")
    with serve_hub(monkeypatch, text.parent / "cache") as hub:
        hub.repositories["org/model"] = theirs
        made = ensure_tokenizer(recipe, [])
        sent = list(hub.sent)
        assert made.made_now and "tokenizer.json" in sent
        assert not ensure_tokenizer(recipe, []).made_now and hub.sent == sent
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ensure_tokenizer(recipe, []).fingerprint == made.fingerprint
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(text.parent / "empty"))
    assert ensure_tokenizer(recipe, []).fingerprint == made.fingerprint
    other = recipe_for(text, tokenizer__vocabulary="org/other")
    with pytest.raises(UserError, match=r"made with vocabulary 'org/model', but .* is 'org/other'"):
        ensure_tokenizer(other, [])


def test_changed_configuration_is_noticed(recipe_for: RecipeFor, text: Path) -> None:
    """A tokenizer_config.json that changed since the folder was taken over is noticed."""
    theirs = bert_tokenizer({t: i for i, t in enumerate((*SPECIAL_TOKENS, "river"))}, True)
    save_tokenizer(theirs, text.parent / "theirs", "wordpiece")
    recipe = recipe_for(text, tokenizer__vocabulary=text.parent / "theirs")
    ensure_tokenizer(recipe, list_sources(recipe.corpora))
    config = text.parent / "theirs" / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"do_lower_case": true', '"do_lower_case": false'))
    with pytest.raises(UserError, match="made with vocabulary_config"):
        ensure_tokenizer(recipe, list_sources(recipe.corpora))


def test_tokenizer_of_earlier_options_is_used(recipe_for: RecipeFor, text: Path) -> None:
    """A tokenizer made before an option existed counts as made with its default."""
    recipe = recipe_for(text)
    ensure_tokenizer(recipe, list_sources(recipe.corpora))
    path = recipe.tokenizer.path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["options"]["strip_accents"]
    path.write_text(json.dumps(manifest))
    ensure_tokenizer(recipe, list_sources(recipe.corpora))
    changed = recipe_for(text, tokenizer__strip_accents=False)
    with pytest.raises(UserError, match=r"made with strip_accents None, but .* is False"):
        ensure_tokenizer(changed, list_sources(changed.corpora))


@pytest.mark.parametrize("refused", ["split", "records"])
def test_refused_build_leaves_no_tokenizer(
    recipe_for: RecipeFor, text: Path, prose: Prose, refused: str
) -> None:
    """A build that is refused for its input leaves no tokenizer that was trained on it."""
    if refused == "split":
        recipe = recipe_for(text, corpus__validation_share=1e-9)
    else:
        lines = [json.dumps({"text": document}) for document in prose("json", 30).split("\n\n")]
        (text.parent / "text.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
        recipe = recipe_for(text.parent / "text.jsonl", input__kind="jsonl")
    with pytest.raises(UserError):
        build_corpus(recipe)
    assert not recipe.tokenizer.path.exists()
    assert not list(text.parent.glob("tokenizer*"))


def test_refused_build_keeps_older_tokenizer(recipe_for: RecipeFor, text: Path) -> None:
    """A tokenizer that was there before a refused build stays."""
    recipe = recipe_for(text, corpus__validation_share=1e-9)
    made = ensure_tokenizer(recipe, list_sources(recipe.corpora))
    with pytest.raises(UserError, match="validation split"):
        build_corpus(recipe)
    assert load_tokenizer(recipe.tokenizer.path).fingerprint == made.fingerprint


def test_full_disk_keeps_tokenizer(
    recipe_for: RecipeFor, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of the machine is no refusal: the tokenizer stays for the next attempt."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build_module, "_run", full)
    recipe = recipe_for(text)
    with pytest.raises(UserError, match="is full"):
        build_corpus(recipe)
    assert load_tokenizer(recipe.tokenizer.path).vocab_size


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
