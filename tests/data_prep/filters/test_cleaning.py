"""Cleaning: equal to a plain implementation on any text, and idempotent.

`plainly_cleaned` applies the documented rules one character at a time.
"""

import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config.schema import CleanOptions
from data_prep.errors import UserError
from data_prep.filters.cleaning import _MAY_NORMALIZE, Cleaner

# Characters with a rule of their own, and letters that combine with accents or do not.
HOSTILE = (
    "ab e\u00e9\u0301\u0308\u0323 \n\r\t\v\f\x00\x1b\x1c\x1f\x7f\x85\u00a0\u00ad\u1100\u1161\u11a8"
    "\u2003\u2000\u200b\u200c\u200d\u200e\u2028\u2029\u202f\u3000\ufeff\ufffd\ud83d\udc00\u212b\u037e"
    "\u00a8\ufdfa\ufb01\uff21中国漢。🙂\u0430\u0438\u0306\u0344\u0958"
)
texts = st.one_of(st.text(max_size=40), st.text(alphabet=HOSTILE, max_size=40))
forms: Any = st.sampled_from(["none", "NFC", "NFKC"])


def cleaner(**options: Any) -> Cleaner:
    return Cleaner(CleanOptions(**options))


def plainly_cleaned(text: str, form: Literal["none", "NFC", "NFKC"], control: bool) -> str:
    kept = []
    for character in text:
        if character in "\n\r\u2029":
            kept.append("\n")
        elif character.isspace():
            kept.append(" ")
        elif not control or not (
            unicodedata.category(character) in ("Cc", "Cs") or character in "\ufeff\ufffd"
        ):
            kept.append(character)
    mended = "".join(kept)
    if form != "none":
        mended = unicodedata.normalize(form, mended)
    paragraphs = [" ".join(paragraph.split()) for paragraph in mended.split("\n")]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


@given(texts, forms, st.booleans())
@settings(max_examples=400, deadline=None)
def test_cleaning_matches_plain_rules(
    text: str, form: Literal["none", "NFC", "NFKC"], control: bool
) -> None:
    """Cleaning equals the documented rules, applied one character at a time."""
    cleaned = cleaner(unicode=form, control=control).clean(text)
    assert cleaned == plainly_cleaned(text, form, control)


@given(st.lists(texts, max_size=5), forms, st.booleans(), st.sampled_from([0, 3]))
@settings(max_examples=400, deadline=None)
def test_many_texts_are_cleaned_alike(
    many: list[str], form: Literal["none", "NFC", "NFKC"], control: bool, shortest: int
) -> None:
    """Texts that are cleaned together are those that are cleaned alone, and counted alike."""
    mine = cleaner(unicode=form, control=control, min_paragraph_chars=shortest)
    together, alone = Counter[str](), Counter[str]()
    assert mine.clean_all(many, together) == [mine.clean(text, alone) for text in many]
    assert +together == +alone


@given(texts, forms, st.booleans(), st.sampled_from([0, 3]))
@settings(max_examples=400, deadline=None)
def test_cleaning_is_idempotent(
    text: str, form: Literal["none", "NFC", "NFKC"], control: bool, shortest: int
) -> None:
    """A cleaned text is not changed by cleaning."""
    mine = cleaner(unicode=form, control=control, min_paragraph_chars=shortest)
    once = mine.clean(text)
    assert mine.clean(once) == once


def test_cleaning_matches_rules_for_all_unicode() -> None:
    """Every character of Unicode is treated by the documented rules."""
    text = "".join(f"a{chr(code)}b" for code in range(sys.maxunicode + 1))
    # NFKC makes white space and letters of many characters that were neither.
    for form in ("none", "NFKC"):
        assert cleaner(unicode=form).clean(text) == plainly_cleaned(text, form, True)


def test_skipped_characters_are_normalized() -> None:
    """The characters that skip normalisation are their own normal form."""
    safe = [c for c in map(chr, range(sys.maxunicode + 1)) if not _MAY_NORMALIZE.match(c)]
    assert len(safe) > 21_000
    for form in ("NFC", "NFKC"):
        # In order, backwards, and each after letters that readily combine.
        for text in (safe, safe[::-1], [f"{base}{c}" for c in safe for base in "aeA"]):
            assert unicodedata.is_normalized(form, "".join(text))
    assert not any(map(unicodedata.combining, safe))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\r\ntwo\rthree\u2029four", "one\ntwo\nthree\nfour"),
        (
            "one\u2028two\x0bthree\x0cfour\x85five\tsix\xa0\u3000 seven",
            "one two three four five six seven",
        ),
        ("  one \n \n\n\t\n two  ", "one\ntwo"),
        ("wo\x00rd\x07 \ufffd\ufeffend\x7f", "word end"),
        ("e\x00\u0301", "é"),
        ("👩\u200d👩 می\u200cخواهم \u200fשלום\u200e", "👩\u200d👩 می\u200cخواهم \u200fשלום\u200e"),
        ("", ""),
        (" \n\ufeff\n ", ""),
    ],
)
def test_cleaning_examples(text: str, expected: str) -> None:
    """Examples of breaks, spaces, controls and joiners."""
    assert cleaner().clean(text) == expected


def test_clean_options_switch_rules() -> None:
    """Options switch off the rules they name; white space is always normalised."""
    text = "e\u0301 \x00\ufffd \xa0x"
    assert cleaner(control=False).clean(text) == "é \x00\ufffd x"
    assert cleaner(unicode="none").clean(text) == "e\u0301 x"
    assert cleaner(unicode="NFKC").clean("ﬁne ｆｕｌｌ") == "fine full"


def test_short_paragraphs_are_dropped() -> None:
    """Short paragraphs are dropped and counted."""
    counts: Counter[str] = Counter()
    mine = cleaner(min_paragraph_chars=5)
    assert mine.clean("Title\nmenu\n long enough \n  a  \n", counts) == "Title\nlong enough"
    assert mine.clean("untouched", counts) == "untouched"
    assert counts == {"mended": 1, "short_paragraphs": 2}


def test_first_reason_drops_document() -> None:
    """Documents are dropped for the first reason that applies."""
    mine = cleaner(min_chars=3, max_chars=5)
    reasons = [mine.reason_to_drop("x" * length) for length in (0, 1, 2, 3, 5, 6)]
    assert reasons == ["empty", "too_short", "too_short", None, None, "too_long"]
    assert cleaner().reason_to_drop("x") is None


def test_user_filter_must_return_bool(tmp_path: Path) -> None:
    """The user's filter decides, and must return True or False."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy\n"
        "def keep(text):\n    return numpy.float64(len(text)) > 3\n"
        "def returns_nothing(text):\n    len(text) > 3\n"
    )
    mine = cleaner(keep=f"{path}:keep")
    assert [mine.reason_to_drop(text) for text in ("abcd", "abc")] == [None, "rejected"]
    with pytest.raises(UserError, match=r"clean\.keep=.*returned None"):
        cleaner(keep=f"{path}:returns_nothing").reason_to_drop("abcd")
