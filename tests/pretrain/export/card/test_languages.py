"""The language of a card: that of the corpus, or a code that the model hub accepts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.errors import UserError
from data_prep.languages import LANGUAGES
from pretrain.export.card import languages
from pretrain.export.card.languages import check_language, example_sentences, language_of_run
from pretrain.run_facts import RunFacts

RECIPES = Path(__file__).parents[4] / "launch" / "recipes"


@pytest.mark.parametrize("given", ["en", "de,fr", "ceb", "multilingual", "xh, zu,xh"])
def test_iso_codes_are_taken(given: str) -> None:
    """Codes of two and three letters are taken, several separated by commas."""
    assert check_language(given) == ",".join(dict.fromkeys(given.replace(" ", "").split(",")))


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("english", ""),
        ("EN", r" \(perhaps en\)"),
        ("zh-Hans", r" \(perhaps zh\)"),
        ("pt_BR", r" \(perhaps pt\)"),
        ("simple", r" \(perhaps en\)"),
        ("xx", ""),
        ("", ""),
        ("en,", ""),
    ],
)
def test_other_codes_are_refused(given: str, hint: str) -> None:
    """What the hub would refuse is refused, with the code that is meant where it is clear."""
    with pytest.raises(UserError, match=rf"no ISO 639 code.*en or de{hint}, several"):
        check_language(given)


def test_every_language_of_a_corpus_has_code() -> None:
    """Each code that `input.language` accepts becomes one that the hub accepts."""
    for code in LANGUAGES:
        found = language_of_run(RunFacts(languages=[code]), Path("nowhere"))
        assert found and check_language(found) == found, code


def test_recipes_languages_have_sentences() -> None:
    """Each language that a shipped recipe prepares has an example with its mask."""
    trees = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in RECIPES.glob("corpus_*.yaml")]
    inputs = [one for t in trees for one in (t.get("inputs", {}).values() or [t.get("input", {})])]
    codes = {one.get("language", "en") for one in inputs} | {"de"}
    assert codes >= {"en", "zh", "hi", "ru", "ja"}
    for code in codes:
        sentences = example_sentences([code], "<mask>")
        assert sentences and all(sentence.count("<mask>") == 1 for sentence in sentences)
    assert example_sentences(["xh"], "<mask>") == ()


def test_language_comes_from_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run states its corpus's languages; for an older one the same corpus is looked up."""
    assert language_of_run(RunFacts(languages=["simple", "de", "en"]), tmp_path) == "en,de"
    assert language_of_run(RunFacts(), tmp_path) is None, "no config.yaml"

    class FakeCorpus:
        languages = ("hi",)
        fingerprint = "c" * 16

        @classmethod
        def open(cls, path: Path) -> Any:
            assert path == Path("data/corpus")
            return cls()

    monkeypatch.setattr(languages, "Corpus", FakeCorpus)
    config = yaml.safe_dump({"corpus": {"path": "data/corpus"}})
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    assert language_of_run(RunFacts(corpus="c" * 16), tmp_path) == "hi"
    assert language_of_run(RunFacts(corpus="d" * 16), tmp_path) is None, "another corpus is there"
    (tmp_path / "config.yaml").write_text("corpus: [", encoding="utf-8")
    assert language_of_run(RunFacts(corpus="c" * 16), tmp_path) is None
