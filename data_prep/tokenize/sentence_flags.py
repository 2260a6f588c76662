"""Sentence rules as marks on chunks, so that numpy can apply them to a whole batch at once.

A text is split into chunks: at spaces, and in Chinese and Japanese also round every ideograph and
every stop. A rule says of each distinct chunk, once, how it can end a sentence and how it can begin
one, as bits; a sentence ends between two chunks when the bits of the one before and of the one
after have something in common.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.config.schema import Language
from data_prep.tokenize.sentence_rules import (
    ANOTHER_WORD,
    ANY_WORD,
    CHINESE_STOP,
    ENGLISH_BEGIN,
    ENGLISH_STOP,
    LIST_ITEM,
    begin_bit,
    end_bits,
)

Marks = npt.NDArray[np.uint8]

NEWLINE = "\n"
DOCUMENT_END = "\n\n"  # a chunk that no text has, because every newline is a chunk of its own

# Beside the kinds of words, what may follow a chunk: a newline, before which every chunk ends a
# sentence, or anything at all, which begins one only after a newline.
_LINE_END, _CHUNK = 8, 16

# BertNormalizer sets each of these code points apart by spaces, so a chunk may end there; the
# ranges are its own (Han ideographs; kana and hangul are words like any other).
_HAN = "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
_HAN += "\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
_STOPS = "。！？；…!?｡"
_CHINESE_CHUNK = re.compile(rf"[{_HAN}]|{CHINESE_STOP}|\n+|[^ \n{_HAN}{_STOPS}]+")
_CHINESE_END = re.compile(CHINESE_STOP)
_ENGLISH_BEGIN = re.compile(ENGLISH_BEGIN)
_LAST = frozenset(".!?…\"'”’»)]}")  # what ENGLISH_STOP can end with
_ENGLISH_STOP_LAST = re.compile(f"{ENGLISH_STOP}$")


@dataclass(frozen=True, kw_only=True)
class SentenceRule:
    """How to split a text into chunks, and what a chunk says of sentences.

    `split` may return empty chunks, which have no tokens; `mark` returns (end, begin) bits of a
    chunk that is neither empty nor a newline.
    """

    split: Callable[[str], list[str]]
    mark: Callable[[str], tuple[int, int]]


def sentence_flags_of(chunk: str, rule: SentenceRule) -> tuple[int, int]:
    """Return the (end, begin) bits of any chunk."""
    if chunk in (NEWLINE, DOCUMENT_END):
        return ANY_WORD | _LINE_END | _CHUNK, _LINE_END | _CHUNK
    end, begin = rule.mark(chunk)
    return end | _LINE_END, begin | _CHUNK


def ends_after(end: Marks, begin: Marks) -> npt.NDArray[np.bool_]:
    """Tell for each chunk whether a sentence ends after it; the last chunk always ends one.

    Args:
        end, begin: the marks of a sequence of chunks without empty ones, [N].
    """
    found = np.ones(len(end), np.bool_)
    found[:-1] = (end[:-1] & begin[1:]) != 0
    # The "1." of a list ends nothing when it begins a sentence itself. In order, because whether
    # the chunk before it was an end may have just been decided.
    for index in np.flatnonzero(found[:-1] & (end[:-1] & LIST_ITEM != 0)):
        is_first = index == 0 or found[index - 1]
        found[index] = not is_first or bool(end[index] & begin[index + 1] & _LINE_END)
    return found


def _mark_english(chunk: str) -> tuple[int, int]:
    # This is asked of every distinct chunk, so the common ones are answered without a search:
    # words in small letters begin nothing, and other ASCII words begin with themselves.
    is_word = chunk.isalnum()
    if "a" <= chunk[0] <= "z":
        begin = 0
    elif is_word and chunk[0].isascii():
        begin = begin_bit(chunk)
    else:
        begins = _ENGLISH_BEGIN.match(chunk)
        begin = begin_bit(begins[1]) if begins else 0
    ends = None if is_word or chunk[-1] not in _LAST else _ENGLISH_STOP_LAST.search(chunk)
    return end_bits(chunk, 0, ends.start()) if ends else 0, begin


def _mark_chinese(chunk: str) -> tuple[int, int]:
    return (ANY_WORD if _CHINESE_END.fullmatch(chunk) else 0), ANOTHER_WORD


def _split_spaces(text: str) -> list[str]:
    # The space alone: str.split() also cuts at characters that the normalizer deletes.
    return text.split(" ")


def _split_chinese(text: str) -> list[str]:
    found: list[Any] = _CHINESE_CHUNK.findall(text)
    return found


RULES: dict[Language, SentenceRule] = {
    "en": SentenceRule(split=_split_spaces, mark=_mark_english),
    "zh": SentenceRule(split=_split_chinese, mark=_mark_chinese),
}
