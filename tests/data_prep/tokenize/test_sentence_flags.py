"""Sentence-boundary flags and the regular expressions of `sentence_rules.py` agree on any text."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config.schema import Language
from data_prep.tokenize.sentence_flags import (
    DOCUMENT_END,
    NEWLINE,
    RULES,
    ends_after,
    sentence_flags_of,
)
from data_prep.tokenize.sentence_rules import split_sentences

WORDS = 'A The 1 12 No. no. p. Mr. U.S. J. 1. a. vol. É ß b z.B. 3.5 x.y ... ?! ." )'.split()
PUNCTUATION = [*list(".!?…\"'()»«“”[]—- "), "\n"]
HAN = list('中文。！？；…!?｡"”」）》 a1.\n')


def split_by_flags(text: str, language: Language) -> list[str]:
    """Return the sentences of a text by the flags of its pre-tokens, as `encoder.py` does."""
    rule = RULES[language]
    pretokens = [each for each in rule.split(text.replace("\n", f" {NEWLINE} ")) if each]
    flags = np.array([sentence_flags_of(each, rule) for each in pretokens], np.uint8)
    end, begin = flags.reshape(-1, 2).T
    sentences: list[list[str]] = [[]]
    for pretoken, ends in zip(pretokens, ends_after(end, begin), strict=True):
        sentences[-1] += [pretoken] if pretoken != NEWLINE else []
        sentences += [[]] if ends else []
    glue = "" if language == "zh" else " "
    return [glue.join(sentence) for sentence in sentences if sentence]


def cleaned(text: str) -> str:
    return "\n".join(re.sub(" +", " ", line).strip() for line in text.split("\n"))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(WORDS + PUNCTUATION), max_size=24).map(lambda parts: " ".join(parts))
)
def test_flags_match_rules_on_english_words(text: str) -> None:
    """Flags and rules agree on English words and abbreviations in any order."""
    assert split_by_flags(cleaned(text), "en") == split_sentences(cleaned(text), "en")


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(WORDS + PUNCTUATION), max_size=24).map(lambda parts: "".join(parts))
)
def test_flags_match_rules_on_joined_words(text: str) -> None:
    """Flags and rules agree on pre-tokens joined of any parts."""
    assert split_by_flags(cleaned(text), "en") == split_sentences(cleaned(text), "en")


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_flags_match_rules_on_unicode(text: str) -> None:
    """Flags and rules agree on any Unicode."""
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    assert split_by_flags(text, "en") == [" ".join(s.split()) for s in split_sentences(text, "en")]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(HAN), max_size=24).map(lambda parts: "".join(parts)))
def test_flags_match_rules_on_chinese(text: str) -> None:
    """Flags and rules agree on Chinese stops and quotes in any order."""
    expected = [sentence.replace(" ", "") for sentence in split_sentences(cleaned(text), "zh")]
    assert split_by_flags(cleaned(text), "zh") == expected


@pytest.mark.parametrize("language", ["en", "zh"])
def test_document_end_ends_sentence(language: Language) -> None:
    """A document end always ends a sentence."""
    rule = RULES[language]
    pretokens = ["and", DOCUMENT_END, "so", NEWLINE, "on"]
    end, begin = np.array([sentence_flags_of(each, rule) for each in pretokens], np.uint8).T
    assert ends_after(end, begin).tolist() == [True, True, True, True, True]


def test_list_number_stays_with_item() -> None:
    """The number of a list item stays with its text."""
    text = "1. Flour\nIt was in 1999. 2. Sugar"
    assert split_by_flags(text, "en") == ["1. Flour", "It was in 1999.", "2. Sugar"]
