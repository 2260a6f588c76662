"""Chinese words: those of jieba, for any pieces of the tokenizer, within one segment."""

import sys
from pathlib import Path

import pytest

from data_prep.errors import UserError
from pretrain.masking.chinese_words import cut, is_chinese, load_jieba
from tests.pretrain.masking.test_whole_word import sentencepiece, wordpiece, words_in

TEXT = "我来到北京清华大学"
WORDS = ["我", "来到", "北京", "清华大学"]


@pytest.fixture(autouse=True)
def jieba_is_here() -> None:
    pytest.importorskip("jieba")


def test_the_words_of_this_sentence_are_those() -> None:
    assert cut(TEXT) == WORDS


def test_characters_become_words_and_other_text_stays(tmp_path: Path) -> None:
    tokenizer = wordpiece(tmp_path, f"walk ##ing 。 {' '.join(TEXT)}")
    found = words_in(tokenizer, f"walk ##ing {' '.join(TEXT)} 。 北 京", chinese=True)
    joined = ["+".join(word) for word in WORDS]
    assert found == ["walk+##ing", *joined, "。", "北+京"]
    assert words_in(tokenizer, " ".join(TEXT)) == list(TEXT)


def test_a_word_does_not_reach_across_segments(tmp_path: Path) -> None:
    tokenizer = wordpiece(tmp_path, "##s 北 京")
    assert words_in(tokenizer, "北", "京", chinese=True) == ["北", "京"]
    assert words_in(tokenizer, "北 京", chinese=True) == ["北+京"]


def test_pieces_longer_than_a_character_begin_a_word_where_one_begins(tmp_path: Path) -> None:
    tokenizer = sentencepiece(tmp_path, "▁ ▁我 来 到北京 清华 大学 ▁walk")
    found = words_in(tokenizer, "▁我 来 到北京 清华 大学 ▁walk", chinese=True)
    # A piece that begins inside a word belongs to it, wherever the piece ends.
    assert found == ["▁我", "来+到北京", "清华+大学", "▁walk"]


def test_ideographs_and_kana_are_chinese_and_other_letters_are_not() -> None:
    assert all(map(is_chinese, "中の漢カ㐀𠀀"))
    assert not any(map(is_chinese, "aé1。,한ก "))


def test_without_jieba_the_option_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match=r"needs jieba, .* `pip install jieba`"):
        load_jieba()
