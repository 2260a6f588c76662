"""The language of a model card, by ISO 639 code, and sentences with a mask for each."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from pretrain.run_facts import RunFacts

_TWO_LETTERS = frozenset(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy "
    "da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu "
    "hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb "
    "lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om "
    "or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv "
    "sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh "
    "zu".split()
)
_SPECIAL = ("multilingual", "code")  # that the model hub accepts beside codes
# Codes of Wikipedia that `input.language` accepts and the model hub does not.
_OF_WIKIPEDIA = {
    "simple": "en",
    "als": "gsw",
    "sr-latn": "sr",
    "zh-classical": "lzh",
    "zh-yue": "yue",
}
# `{mask}` stands for the mask token. The card shows the first, `launch/compare.py` all.
_SENTENCES = {
    "en": (
        "She looked {mask} the window.",
        "She opened the door and went into the {mask}.",
        "The old man was sitting in {mask} chair.",
        "They had {mask} for a long time.",
        "He took the book out {mask} his pocket.",
        "He did not say a {mask}.",
    ),
    "de": (
        "Sie sah aus dem {mask}.",
        "Der alte Mann saß {mask} seinem Stuhl.",
        "Die Hauptstadt von Frankreich ist {mask}.",
    ),
    "hi": (
        "भारत की राजधानी {mask} है।",
        "वह अपने घर {mask} रहता है।",
        "उसने दरवाज़ा {mask} दिया।",
    ),
    "ja": ("彼は有名な{mask}です。", "フランスの首都は{mask}です。", "彼女は本を{mask}。"),
    "ru": ("Она посмотрела {mask} окно.", "Столица Франции — {mask}.", "Он открыл {mask} и вошёл."),
    "zh": ("他是一位著名的{mask}家。", "法国的首都是{mask}黎。", "她打开{mask}走了进去。"),
}


def check_language(language: str) -> str:
    """Return `--language` in the form of a card: codes separated by commas.

    Raises:
        UserError: for what is not a code of ISO 639, which the model hub refuses.
    """
    codes = [code.strip() for code in language.split(",")]
    for code in codes:
        if not _is_code(code):
            near = _OF_WIKIPEDIA.get(code.lower()) or re.split("[-_]", code.lower())[0]
            hint = f" (perhaps {near})" if _is_code(near) else ""
            raise UserError(
                f"--language {code!r} is no ISO 639 code: give two or three small letters, such as "
                f"en or de{hint}, several separated by commas, or multilingual."
            )
    return ",".join(dict.fromkeys(codes))


def language_of_run(facts: RunFacts, run_path: Path) -> str | None:
    """Return the language of the corpus of a run, or None where it is not known.

    A run of an earlier version does not state it; then its corpus does, if it is still there.
    """
    languages = facts.languages or _languages_of_corpus(facts, run_path)
    codes = [_OF_WIKIPEDIA.get(code, code) for code in languages]
    return ",".join(dict.fromkeys(code for code in codes if _is_code(code))) or None


def example_sentences(languages: Sequence[str], mask_token: str) -> tuple[str, ...]:
    """Return sentences in the first language that has some; none for any other language."""
    for code in languages:
        if found := _SENTENCES.get(_OF_WIKIPEDIA.get(code, code)):
            return tuple(sentence.format(mask=mask_token) for sentence in found)
    return ()


def _is_code(code: str) -> bool:
    return code in _TWO_LETTERS or code in _SPECIAL or bool(re.fullmatch(r"[a-z]{3}", code))


def _languages_of_corpus(facts: RunFacts, run_path: Path) -> Sequence[str]:
    config = run_path / "config.yaml"
    if not config.is_file():
        return ()
    try:
        tree = yaml.safe_load(config.read_text(encoding="utf-8"))
        corpus = Corpus.open(Path(tree["corpus"]["path"]))
    # The corpus is not needed for anything else: without it the language is not known.
    except (UserError, OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return ()
    return corpus.languages if corpus.fingerprint == facts.corpus else ()
