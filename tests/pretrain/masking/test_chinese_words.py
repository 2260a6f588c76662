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


def test_cut_segments_chinese_sentence() -> None:
    """A sentence is cut into the words that the other tests expect."""
    assert cut(TEXT) == WORDS


def test_wordpiece_characters_join_to_words(tmp_path: Path) -> None:
    """Characters are joined to jieba's words, and other pieces are unchanged."""
    tokenizer = wordpiece(tmp_path, f"walk ##ing 。 {' '.join(TEXT)}")
    found = words_in(tokenizer, f"walk ##ing {' '.join(TEXT)} 。 北 京", chinese=True)
    joined = ["+".join(word) for word in WORDS]
    assert found == ["walk+##ing", *joined, "。", "北+京"]
    assert words_in(tokenizer, " ".join(TEXT)) == list(TEXT)


def test_words_end_with_segment(tmp_path: Path) -> None:
    """A word ends with its segment."""
    tokenizer = wordpiece(tmp_path, "##s 北 京")
    assert words_in(tokenizer, "北", "京", chinese=True) == ["北", "京"]
    assert words_in(tokenizer, "北 京", chinese=True) == ["北+京"]


def test_longer_pieces_start_words(tmp_path: Path) -> None:
    """A piece of several characters starts a word if one of jieba's words starts where it does."""
    tokenizer = sentencepiece(tmp_path, "▁ ▁我 来 到北京 清华 大学 ▁walk")
    found = words_in(tokenizer, "▁我 来 到北京 清华 大学 ▁walk", chinese=True)
    # A piece that begins inside a word belongs to it, wherever the piece ends.
    assert found == ["▁我", "来+到北京", "清华+大学", "▁walk"]


def test_is_chinese_ideographs_and_kana() -> None:
    """Ideographs and kana count as Chinese, other characters do not."""
    assert all(map(is_chinese, "中の漢カ㐀𠀀"))
    assert not any(map(is_chinese, "aé1。,한ก "))


def test_missing_jieba_is_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jieba the option is an error that names the package."""
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match=r"needs jieba, .* `pip install jieba`"):
        load_jieba()
