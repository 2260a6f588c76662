"""Sentences: where a paragraph may be cut, for scripts with spaces and for Chinese and Japanese.

A regular expression proposes every place where a sentence could end; for spaced scripts a look
at the word before the full stop then withdraws abbreviations and initials. The rules prefer a
sentence too long to one cut in half, because a half would be presented to the model as a whole.
"""

import re
from collections.abc import Callable, Iterator

from data_prep.options import Language

# A stop, the quotes and brackets that belong to it, white space, and then anything that can
# begin a sentence: after optional opening marks, no lower-case letter and no stray punctuation.
_ENGLISH_END = re.compile(
    r"""[.!?…][.!?…]*["'”’»)\]}]*\s+(?=["'“‘«(\[{$£€#—–-]*([^\W_a-zß-öø-ÿ]\w*))"""
)
_CHINESE_END = re.compile(r"""[。！？；…!?｡][。！？；…!?｡]*["'”’」』）)】》〉〕］]*\s*(?=\S)""")
_WORD_BEFORE = re.compile(r"""[^\s"'“‘«(\[{—–-]*$""")

# After these a capital letter says nothing: they stand before names.
_BEFORE_NAMES = frozenset(
    "mr mrs ms messrs mme mlle dr prof rev fr hon st ste mt gen col maj capt cpt lt sgt cpl pvt "
    "adm cmdr gov sen rep pres supt cf ca approx vs v viz e.g i.e al".split()
)
_BEFORE_NUMBERS = frozenset(
    "no nos nr vol vols fig figs eq sec ch art p pp c jan feb mar apr jun jul aug sep sept oct nov "
    "dec".split()
)
# These end a sentence about as often as not: the next word decides.
_UNDECIDED = frozenset(
    "jr sr inc ltd co corp bros etc esq a.m p.m u.s u.k u.n d.c ph.d b.a m.a m.d b.c a.d".split()
)
_OPENERS = frozenset(
    "The He She It They We You This That These Those There In On At After Before But And When "
    "While As If His Her Their Its Our My However Although Since During For From By With Some "
    "Many Most One Two What Who Why How".split()
)
# A full stop before one of these is no abbreviation's.
_SURE = ".!?…\"'”’"
_INITIAL = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
_ENUMERATION = re.compile(r"\d{1,3}|[^\W\d_]")


def split_sentences(text: str, language: Language) -> list[str]:
    """Return the sentences of a text, without surrounding white space and without empty ones.

    A newline always ends a sentence: readers have already joined lines that only wrap.
    """
    ends = _RULES[language]
    sentences: list[str] = []
    for paragraph in text.split("\n"):
        start = 0
        for end in ends(paragraph):
            sentences.append(paragraph[start:end].strip())
            start = end
        if rest := paragraph[start:].strip():
            sentences.append(rest)
    return sentences


def _english_ends(paragraph: str) -> Iterator[int]:
    """Yield the position after each sentence but the last, white space included."""
    start = 0
    for match in _ENGLISH_END.finditer(paragraph):
        if _ends_sentence(paragraph, start, match):
            start = match.end()
            yield start


def _ends_sentence(paragraph: str, start: int, match: re.Match[str]) -> bool:
    """Tell a sentence's full stop from an abbreviation's; `!`, `?`, `...` and `."` always end."""
    stop = match.start()
    if paragraph[stop] != "." or paragraph[stop + 1] in _SURE:
        return True
    # No abbreviation is longer than this, so a long word costs no more than a short one.
    word_match = _WORD_BEFORE.search(paragraph, max(start, stop - 12), stop)
    word = word_match[0] if word_match else ""
    lowered = word.lower()
    if lowered in _BEFORE_NAMES or (lowered in _BEFORE_NUMBERS and match[1][0].isdigit()):
        return False
    if lowered in _UNDECIDED or _INITIAL.fullmatch(word):
        return match[1] in _OPENERS
    # "1. Flour" at the beginning is a list item, not a sentence.
    return not (stop - len(word) == start and _ENUMERATION.fullmatch(word))


def _chinese_ends(paragraph: str) -> Iterator[int]:
    """Yield the position after each sentence but the last; stops are unambiguous."""
    return (match.end() for match in _CHINESE_END.finditer(paragraph))


_RULES: dict[Language, Callable[[str], Iterator[int]]] = {
    "en": _english_ends,
    "zh": _chinese_ends,
}
