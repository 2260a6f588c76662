"""Sentence rules: English, Chinese and Japanese examples."""

import pytest

from data_prep.config.schema import Language
from data_prep.tokenize.sentence_rules import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["One.", "Two!", "Three?", "Four..."],
        ["Mr. Smith met Dr. J. K. Rowling at St. Paul's."],
        ["He joined the U.S. Army.", "She stayed."],
        ["He lives in the U.S.", "She lives in France."],
        ["It opens at 9 a.m. Monday.", "It shuts at 5 p.m.", "They went home."],
        ['He said "Go!"', "Then he left."],
        ["She wrote it (in ink.)", "He read it."],
        ["“Why?” she asked.", "“No.”", "“Yes.”"],
        ["He said no.", "See No. 5 and fig. 2 for details."],
        ["The price is $3.50.", "$4 is too much.", "It rose in 1999.", "2000 was worse."],
        ["1. Flour.", "2. Sugar."],
        ["Ask, e.g. John, i.e. him.", "Ötzi was found.", "Élan is a word."],
        ["He saw www.example.com and v2.0 of it. and went on."],
        ["Wait ... what?", "Yes."],
    ],
)
def test_english_sentences_split(sentences: list[str]) -> None:
    """English sentences are found after joining."""
    assert split_sentences(" ".join(sentences), "en") == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["今天很好。", "明天呢？", "真的！"],
        ["他说：“你好！”", "然後走了。"],
        ["彼は「行く。」", "と言った。"],
        ["等等……", "好；", "走吧"],
        ["真的吗？！", "版本2.0很好。"],
    ],
)
def test_chinese_japanese_sentences_split(
    sentences: list[str],
) -> None:
    """Chinese and Japanese sentences are found after joining."""
    assert split_sentences("".join(sentences), "zh") == sentences


@pytest.mark.parametrize("language", ["en", "zh"])
def test_newline_ends_sentence(language: Language) -> None:
    """A newline always ends a sentence, and blank sentences are dropped."""
    text = "  A title\n\n \nthe text  \t\n"
    assert split_sentences(text, language) == ["A title", "the text"]
    assert split_sentences(" \n ", language) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_splitting_keeps_characters(language: Language) -> None:
    """No character but white space is lost."""
    text = "“Mr. A.” (B.) said... ‘No!’ 他说。“好” 1. x\u3000y?! Z… e.g. U.S. 5.\n. ? !"
    kept = "".join("".join(split_sentences(text, language)).split())
    assert kept == "".join(text.split())
