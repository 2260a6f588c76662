"""Marks cut where the regular expressions of `sentences.py` cut, whatever the text."""

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
MARKS = [*list(".!?…\"'()»«“”[]—- "), "\n"]
HAN = list('中文。！？；…!?｡"”」）》 a1.\n')


def by_marks(text: str, language: Language) -> list[str]:
    """Return the sentences of a text as `encoder.py` finds them, but as text."""
    rule = RULES[language]
    chunks = [chunk for chunk in rule.split(text.replace("\n", f" {NEWLINE} ")) if chunk]
    marks = np.array([sentence_flags_of(chunk, rule) for chunk in chunks], np.uint8).reshape(-1, 2)
    sentences: list[list[str]] = [[]]
    for chunk, ends in zip(chunks, ends_after(marks[:, 0], marks[:, 1]), strict=True):
        sentences[-1] += [chunk] if chunk != NEWLINE else []
        sentences += [[]] if ends else []
    glue = "" if language == "zh" else " "
    return [glue.join(sentence) for sentence in sentences if sentence]


def cleaned(text: str) -> str:
    return "\n".join(re.sub(" +", " ", line).strip() for line in text.split("\n"))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS + MARKS), max_size=24).map(lambda parts: " ".join(parts)))
def test_english_words_and_abbreviations_in_any_order(text: str) -> None:
    assert by_marks(cleaned(text), "en") == split_sentences(cleaned(text), "en")


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS + MARKS), max_size=24).map(lambda parts: "".join(parts)))
def test_english_chunks_of_anything(text: str) -> None:
    assert by_marks(cleaned(text), "en") == split_sentences(cleaned(text), "en")


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_english_on_any_unicode(text: str) -> None:
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    assert by_marks(text, "en") == [" ".join(s.split()) for s in split_sentences(text, "en")]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(HAN), max_size=24).map(lambda parts: "".join(parts)))
def test_chinese_stops_and_quotes_in_any_order(text: str) -> None:
    expected = [sentence.replace(" ", "") for sentence in split_sentences(cleaned(text), "zh")]
    assert by_marks(cleaned(text), "zh") == expected


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_document_end_always_ends_a_sentence(language: Language) -> None:
    rule = RULES[language]
    chunks = ["and", DOCUMENT_END, "so", NEWLINE, "on"]
    marks = np.array([sentence_flags_of(chunk, rule) for chunk in chunks], np.uint8)
    assert ends_after(marks[:, 0], marks[:, 1]).tolist() == [True, True, True, True, True]


def test_the_number_of_a_list_item_stays_with_its_text() -> None:
    text = "1. Flour\nIt was in 1999. 2. Sugar"
    assert by_marks(text, "en") == ["1. Flour", "It was in 1999.", "2. Sugar"]
