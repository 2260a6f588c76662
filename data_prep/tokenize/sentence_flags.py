"""Sentence-boundary flags: sentence rules as bits of pre-tokens, to apply them to a whole batch.

A text is split into pre-tokens: at spaces, and in Chinese and Japanese also around every ideograph
and every stop. For each distinct pre-token a rule computes, once, how it can end a sentence and how
it can begin one, as bits. A sentence ends between two pre-tokens when the end bits of the first and
the begin bits of the second have one in common.
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

Flags = npt.NDArray[np.uint8]

NEWLINE = "\n"
DOCUMENT_END = "\n\n"  # not a pre-token of any text: in text every newline is one by itself

# Beside the kinds of words, what may follow: a newline, before which every pre-token ends a
# sentence, or any pre-token, which begins a sentence after a newline.
_LINE_END, _PRETOKEN = 8, 16

# BertNormalizer puts spaces around each of these code points, so a pre-token may end there; the
# ranges are those of BertNormalizer (Han ideographs; kana and hangul are words like any other).
_HAN = "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
_HAN += "\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
_STOPS = "。！？；…!?｡"
_CHINESE_PRETOKEN = re.compile(rf"[{_HAN}]|{CHINESE_STOP}|\n+|[^ \n{_HAN}{_STOPS}]+")
_CHINESE_END = re.compile(CHINESE_STOP)
_ENGLISH_BEGIN = re.compile(ENGLISH_BEGIN)
_LAST = frozenset(".!?…\"'”’»)]}")  # what ENGLISH_STOP can end with
_ENGLISH_STOP_LAST = re.compile(f"{ENGLISH_STOP}$")


@dataclass(frozen=True, kw_only=True)
class SentenceRule:
    """How to split a text into pre-tokens, and the sentence-boundary flags of a pre-token.

    `split` may return empty pre-tokens, which have no tokens; `flags` returns the (end, begin) bits
    of a pre-token that is neither empty nor a newline.
    """

    split: Callable[[str], list[str]]
    flags: Callable[[str], tuple[int, int]]


def sentence_flags_of(pretoken: str, rule: SentenceRule) -> tuple[int, int]:
    """Return the (end, begin) bits of any pre-token."""
    if pretoken in (NEWLINE, DOCUMENT_END):
        return ANY_WORD | _LINE_END | _PRETOKEN, _LINE_END | _PRETOKEN
    end, begin = rule.flags(pretoken)
    return end | _LINE_END, begin | _PRETOKEN


def ends_after(end: Flags, begin: Flags) -> npt.NDArray[np.bool_]:
    """Return a mask of the pre-tokens after which a sentence ends, [N]; the last is among them.

    Args:
        end: end bits of a sequence of pre-tokens without empty ones, [N].
        begin: their begin bits, [N].
    """
    found = np.ones(len(end), np.bool_)
    found[:-1] = (end[:-1] & begin[1:]) != 0
    # The "1." of a list ends no sentence when it begins one itself. In order, because whether the
    # pre-token before it ends one may have just been decided.
    for index in np.flatnonzero(found[:-1] & (end[:-1] & LIST_ITEM != 0)):
        is_first = index == 0 or found[index - 1]
        found[index] = not is_first or bool(end[index] & begin[index + 1] & _LINE_END)
    return found


def _english_flags(pretoken: str) -> tuple[int, int]:
    # Called for every distinct pre-token, so the common ones need no search: words in lower case
    # begin no sentence, and other ASCII words have no punctuation in front.
    is_word = pretoken.isalnum()
    if "a" <= pretoken[0] <= "z":
        begin = 0
    elif is_word and pretoken[0].isascii():
        begin = begin_bit(pretoken)
    else:
        begins = _ENGLISH_BEGIN.match(pretoken)
        begin = begin_bit(begins[1]) if begins else 0
    ends = None if is_word or pretoken[-1] not in _LAST else _ENGLISH_STOP_LAST.search(pretoken)
    return end_bits(pretoken, 0, ends.start()) if ends else 0, begin


def _chinese_flags(pretoken: str) -> tuple[int, int]:
    return (ANY_WORD if _CHINESE_END.fullmatch(pretoken) else 0), ANOTHER_WORD


def _split_spaces(text: str) -> list[str]:
    # The space alone: str.split() also cuts at characters that the normalizer deletes.
    return text.split(" ")


def _split_chinese(text: str) -> list[str]:
    found: list[Any] = _CHINESE_PRETOKEN.findall(text)
    return found


RULES: dict[Language, SentenceRule] = {
    "en": SentenceRule(split=_split_spaces, flags=_english_flags),
    "zh": SentenceRule(split=_split_chinese, flags=_chinese_flags),
}
