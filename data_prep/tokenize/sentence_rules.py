"""Sentence rules: where a sentence ends, for scripts with spaces and for Chinese and Japanese.

A regular expression finds every position where a sentence could end; for spaced scripts the word
before the full stop then excludes abbreviations and initials. The rules prefer a sentence too long
to one cut in half, because the model would see the half as a whole sentence.

The rules depend only on the pre-token before a position and the one after it. So
`sentence_flags.py` applies them once to each distinct pre-token, which is several times faster, and
finds the same positions.
"""

import re
from collections.abc import Callable, Iterator

from data_prep.config.schema import Language

# What can begin a sentence: after optional opening quotes and brackets, no lower-case letter and no
# stray punctuation.
ENGLISH_BEGIN = r"""["'“‘«(\[{$£€#—–-]*([^\W_a-zß-öø-ÿ]\w*)"""
# A stop, the quotes and brackets that belong to it, and spaces: cleaned text has no other kind.
ENGLISH_STOP = r"""[.!?…]+["'”’»)\]}]*"""
_ENGLISH_END = re.compile(f"{ENGLISH_STOP} +(?={ENGLISH_BEGIN})")
CHINESE_STOP = r"""[。！？；…!?｡]+["'”’」』）)】》〉〕］]*"""
# The stop is in a lookahead, so that backtracking at the end of a paragraph takes none of it.
_CHINESE_END = re.compile(rf"(?=({CHINESE_STOP}))\1 *(?=[^ ])")
_WORD_BEFORE = re.compile(r"""[^\s"'“‘«(\[{—–-]*$""")

# After these a capital letter is no evidence: they stand before names.
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
# A full stop before one of these is not that of an abbreviation.
_SURE = frozenset(".!?…\"'”’")
_INITIAL = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
_ENUMERATION = re.compile(r"\d{1,3}")

# Kinds of words that may follow an abbreviation; they decide whether its full stop ends a sentence.
OPENER, NUMBER, ANOTHER_WORD = 1, 2, 4
ANY_WORD = OPENER | NUMBER | ANOTHER_WORD
LIST_ITEM = 32


def split_sentences(text: str, language: Language) -> list[str]:
    """Return the sentences of a cleaned text, without surrounding spaces and without empty ones.

    A newline always ends a sentence: readers have already joined wrapped lines.
    """
    ends = SENTENCE_ENDS[language]
    sentences: list[str] = []
    for paragraph in map(str.strip, text.split("\n")):
        start = 0
        for end in ends(paragraph):
            sentences.append(paragraph[start:end].strip())
            start = end
        if rest := paragraph[start:].strip():
            sentences.append(rest)
    return sentences


def english_ends(paragraph: str) -> Iterator[int]:
    """Yield the position after each sentence but the last, spaces included."""
    start = 0
    for match in _ENGLISH_END.finditer(paragraph):
        bits = end_bits(paragraph, start, match.start())
        if bits & begin_bit(match[1]) and not bits & LIST_ITEM:
            start = match.end()
            yield start


def end_bits(text: str, start: int, stop: int) -> int:
    """Return the kinds of words that may begin a sentence after the stop at `text[stop]`.

    `!`, `?`, `...` and `."` end a sentence before any word, an abbreviation before some or none.
    LIST_ITEM is set for the "1." of a list: a number that begins at `start`.
    """
    if text[stop] != "." or text[stop + 1 : stop + 2] in _SURE:
        return ANY_WORD
    # No abbreviation is longer than this, so a long word costs no more than a short one.
    word_match = _WORD_BEFORE.search(text, max(start, stop - 12), stop)
    word = word_match[0] if word_match else ""
    lowered = word.lower()
    if lowered in _BEFORE_NAMES:
        return 0
    undecided = lowered in _UNDECIDED or _INITIAL.fullmatch(word)
    bits = OPENER if undecided else ANY_WORD
    if lowered in _BEFORE_NUMBERS:
        bits &= ~NUMBER
    if stop - len(word) == start and _ENUMERATION.fullmatch(word):
        bits |= LIST_ITEM
    return bits


def begin_bit(word: str) -> int:
    """Return the kind of a word that could begin a sentence."""
    return OPENER if word in _OPENERS else NUMBER if word[0].isdigit() else ANOTHER_WORD


def _chinese_ends(paragraph: str) -> Iterator[int]:
    """Yield the position after each sentence but the last; stops are unambiguous."""
    return (match.end() for match in _CHINESE_END.finditer(paragraph))


SENTENCE_ENDS: dict[Language, Callable[[str], Iterator[int]]] = {
    "en": english_ends,
    "zh": _chinese_ends,
}
