"""Sentence boundaries: where the sentences of a text end, by the rules of its language.

A regular expression finds every stop that a space and something other than a lower-case letter
follow; the word before a full stop then excludes abbreviations, initials and ordinals. The rules
prefer a sentence too long to one cut in half, because the model would see the half as a whole one.
Every step moves forward, so the time is linear in the text, whatever it holds.

Most stops of Latin text are behind a word that is no abbreviation. `stops.py` finds these in all of
a text at once, and leaves the others to the expression.
"""

import functools
import re
from bisect import bisect
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from data_prep.corpus.shards import Int64Array
from data_prep.languages import LANGUAGES, LanguageRules
from data_prep.tokenize.stops import TAIL, StopFinder, abbreviations

# From a cleaned text, of any number of paragraphs, to the positions at which a sentence begins that
# does not begin its paragraph.
FindStarts = Callable[[str], Int64Array]

_CLOSERS = "\"'”’“‘»«›‹)\\]}」』）】》〉〕］"
# French has a space inside its quotes.
_OPENERS = re.compile("""(?:« |["'“‘„‚«»‹›(\\[{$£€#—–¿¡-])*""")
# A full stop and one of these after it is not that of an abbreviation.
_QUOTES = frozenset("\"'”’“‘»«")
_WORD_BEFORE = re.compile(r"""[^\s"'“‘„«(\[{—–-]*$""")
# Vowel signs of Indic scripts are marks, which \w leaves out.
_WORD = re.compile(r"[\w\u0900-\u0963\u0966-\u0dff]*")
_INITIAL = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
_ENUMERATION = re.compile(r"\d{1,3}")
# "Vol. II", but not "no. I".
_ROMAN = re.compile(r"(?:[IVXLC]{2,}|[VX])\b")
# No abbreviation of `data_prep/languages.py` is longer.
_LONGEST = 12
# Characters from which a space ends a sentence of a script without stops.
_LENGTH = 100
# Without those that open quotations in Chinese and close them in German.
_UNSPACED_CLOSERS = _CLOSERS.translate(str.maketrans("", "", "“‘«‹"))
# In scripts without spaces: what goes on with a sentence behind a stop, or behind its closing mark
# (a particle as in 「…？」と聞いた, or who said it as in “…？”他问), and the rest of a title.
_COMMAS = "、，,：:・"
_PARTICLES = "とっのはがをにもでやなか"
_SAID = r"[^，。！？；：\n“”]{0,8}[问問说說喊叫答]"
_TITLE_END = r"[^《》\n]{1,30}》"


@functools.cache
def starts_finder(language: str) -> FindStarts:
    """Return the function that finds the sentence starts of a language."""
    rules = LANGUAGES[language]
    if rules.kind == "length":
        return _find_by_length
    return _unspaced(rules) if rules.kind == "unspaced" else _spaced(rules)


def split_sentences(text: str, language: str) -> list[str]:
    """Return the sentences of a cleaned text, without surrounding spaces and without empty ones.

    A newline always ends a sentence: readers have already joined wrapped lines.
    """
    starts = [0, *starts_finder(language)(text).tolist(), len(text)]
    pieces = [text[a:b] for a, b in pairwise(starts)]
    sentences = (part.strip() for piece in pieces for part in piece.split("\n"))
    return [sentence for sentence in sentences if sentence]


def _spaced(rules: LanguageRules) -> FindStarts:
    tails = {word[-TAIL:] for word in abbreviations(rules)}
    stops = StopFinder(rules, _CLOSERS)
    candidate = re.compile(f"[{re.escape(rules.stops)}](?:[{_CLOSERS}]| »)* (?=[^a-z\n])")

    def find(text: str) -> Int64Array:
        certain, doubtful = stops.find(text)
        found = [0, *certain.tolist()]
        if doubtful is None:
            matches = candidate.finditer(text)
        else:
            matches = filter(None, (candidate.match(text, stop) for stop in doubtful.tolist()))
        starts = [0]
        for match in matches:
            stop, end = match.span()
            begin = end
            if not text[begin].isalnum():
                begin = _OPENERS.match(text, begin).end()  # type: ignore[union-attr]
                if not text[begin : begin + 1].isalnum():
                    continue
            if text[begin].islower():
                continue
            if text[stop] == ".":
                # Nearly every word before a stop ends otherwise than all abbreviations.
                tail = text[stop - TAIL : stop]
                if not tail.isalpha() or tail.lower() in tails:
                    decided = text[stop + 1] in _QUOTES or text[stop - 1 : stop] in rules.stops
                    last = max(starts[-1], found[bisect(found, stop) - 1])
                    if not decided and not _ends_sentence(text, last, stop, begin, rules):
                        continue
            starts.append(end)
        return np.sort(np.concatenate([certain, np.array(starts[1:], np.int64)]))

    return find


def _ends_sentence(text: str, start: int, stop: int, begin: int, rules: LanguageRules) -> bool:
    """Tell whether the full stop at `text[stop]` ends a sentence.

    Args:
        text: of any number of paragraphs.
        start: where the sentence before the stop begins, or an earlier paragraph.
        stop: of the full stop.
        begin: where the word after it begins.
        rules: of the language.
    """
    word = text[max(stop - _LONGEST, 0) : stop]
    word = word[word.rfind(" ") + 1 :]
    if not word.isalnum():
        word = _WORD_BEFORE.search(word)[0]  # type: ignore[index]
    lowered = word.lower()
    if lowered in rules.before_names:
        return False
    is_number = word.isdecimal()
    at = stop - len(word)
    if is_number and (at == start or text[at - 1] == "\n") and _ENUMERATION.fullmatch(word):
        return False  # the "1." of a list
    if lowered in rules.before_numbers and (text[begin].isdecimal() or _ROMAN.match(text, begin)):
        return False
    undecided = (
        lowered in rules.undecided
        or (rules.ordinals and (_ENUMERATION.fullmatch(word) or _ROMAN.fullmatch(word)))
        or (len(word) < _LONGEST and _INITIAL.fullmatch(word))
    )
    if not undecided:
        return True
    following = _WORD.match(text, begin)[0]  # type: ignore[index]
    another_initial = len(following) == 1 and text.startswith(".", begin + 1)
    return following in rules.first_words and not another_initial


def _unspaced(rules: LanguageRules) -> FindStarts:
    # An ASCII mark ends a sentence where no other ASCII character follows: URLs have some, too. It
    # is tried at the beginning of a run alone, or a long run would take quadratic time.
    stop = f"(?:[{re.escape(rules.stops)}]++|(?<![!?])[!?]++(?=[^!-~]))(?!{_TITLE_END})"
    alone = f"(?![{_UNSPACED_CLOSERS}{_COMMAS}])"
    goes_on = f"[{_COMMAS}{_PARTICLES}{re.escape(rules.stops)}]"
    closed = f"[{_UNSPACED_CLOSERS}]++(?!{goes_on}|{_SAID})"
    candidate = re.compile(f"{stop}(?:{closed}|{alone}) *(?=[^ \n])")

    def find(text: str) -> Int64Array:
        return np.array([match.end() for match in candidate.finditer(text)], np.int64)

    return find


def _find_by_length(text: str) -> Int64Array:
    starts: list[int] = []
    last, space = 0, text.find(" ", _LENGTH)
    while space >= 0:
        last = max(last, text.rfind("\n", last, space) + 1)
        if space - last >= _LENGTH:
            starts.append(space + 1)
            last = space + 1
        space = text.find(" ", max(last + _LENGTH, space + 1))
    return np.array(starts, np.int64)
