"""Stops in Latin text, found in all of a text at once by comparing arrays of its characters.

Nine stops of ten certainly end a sentence or certainly do not, by the four characters before them
and the two after. Only the rest is worth a regular expression.
"""

import string

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.languages import LanguageRules

# Letters that tell most words from all abbreviations.
TAIL = 3
# Of a shorter text the arrays cost more than they save.
_MIN_CHARS = 10_000
# A regular expression reads as many characters in the time that it takes to look at a stop here,
# and to try one by itself.
_CHARS_A_STOP, _CHARS_A_TRIAL = 16, 100
_NEWLINE, _SPACE, _FULL_STOP = b"\n ."
# The characters before and after any stop exist.
_PADDING = b"\n" * (TAIL + 1)
# Classes of characters: 0 is any other, 1 to 26 are letters.
_DIGIT, _WHITE_SPACE, _MARK, _CLASSES = 27, 28, 29, 30
_LETTERS = slice(1, 27)


class StopFinder:
    """Finds the stops of a text that may end a sentence.

    Args:
        rules: of the language, whose decisions these are.
        closers: marks that may stand between a stop and the space after it.
    """

    def __init__(self, rules: LanguageRules, closers: str) -> None:
        self._stops = sorted(set(_codes(rules.stops)))
        self._may_follow = _table(closers + " ")
        self._begins = _table(string.ascii_uppercase + string.digits)
        self._continues = _table(string.ascii_lowercase + "\n")
        self._classes = _classes(rules)
        self._ordinary = _ordinary_tails(rules, self._classes)

    def find(self, text: str) -> tuple[Int64Array, Int64Array | None]:
        """Return the positions where sentences certainly begin, and those of doubtful stops.

        The first are behind a full stop and a space, and before a capital or a digit. The others
        are None where they are too many to be tried one by one: then nothing is certain either.
        """
        nothing = np.zeros(0, np.int64)
        if len(text) < _MIN_CHARS:
            return nothing, None
        codes = np.frombuffer(_codes(text) + _PADDING, np.uint8)
        stops = np.flatnonzero(np.logical_or.reduce([codes == stop for stop in self._stops]))
        if len(stops) * _CHARS_A_STOP > len(text):
            return nothing, None
        stops = stops[self._may_follow[codes[stops + 1]]]
        spaced, after = codes[stops + 1] == _SPACE, codes[stops + 2]
        certain = spaced & self._begins[after] & (codes[stops] == _FULL_STOP)
        fourth, *tail = (self._classes[codes[stops - back]] for back in range(TAIL + 1, 0, -1))
        is_year = np.logical_and.reduce([each == _DIGIT for each in (fourth, *tail)])
        certain &= self._ordinary[tuple(tail)] | is_year
        doubtful = stops[~certain & ~(spaced & self._continues[after])]
        if len(doubtful) * _CHARS_A_TRIAL > len(text):
            return nothing, None
        return stops[certain] + 2, doubtful


def abbreviations(rules: LanguageRules) -> frozenset[str]:
    """Return the words of a language whose full stop may not end a sentence."""
    return rules.before_names | rules.before_numbers | rules.undecided


def _classes(rules: LanguageRules) -> npt.NDArray[np.uint8]:
    """Return the class of each code; marks are those that end no abbreviation."""
    classes = np.zeros(256, np.uint8)
    last = {word[-1] for word in abbreviations(rules)}
    classes[list(_codes("".join({*string.punctuation} - {*rules.stops, "?", "."} - last)))] = _MARK
    classes[[_SPACE, _NEWLINE]] = _WHITE_SPACE
    classes[list(_codes(string.digits))] = _DIGIT
    for letters in (string.ascii_lowercase, string.ascii_uppercase):
        classes[list(_codes(letters))] = range(1, 27)
    return classes


def _ordinary_tails(rules: LanguageRules, classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return a mask of the classes of three characters whose full stop ends a sentence.

    They end with a mark, are letters that end no abbreviation, or a word of two.
    """
    ordinary = np.zeros((_CLASSES,) * TAIL, np.bool_)
    if "." not in rules.stops:
        return ordinary
    ordinary[:, :, _MARK] = True
    ordinary[_LETTERS, _LETTERS, _LETTERS] = True
    ordinary[_WHITE_SPACE, _LETTERS, _LETTERS] = True
    for word in abbreviations(rules):
        tail = f" {word}"[-TAIL:]
        if len(tail) == TAIL and tail.isascii():
            ordinary[tuple(classes[list(_codes(tail))])] = False
    if rules.ordinals:  # II, IV
        ordinary[_WHITE_SPACE][np.ix_(*[classes[list(b"ivxlc")]] * 2)] = False
    return ordinary


def _codes(text: str) -> bytes:
    """Return a byte for each character; those outside Latin-1 are question marks."""
    return text.encode("latin-1", "replace")


def _table(characters: str) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[list(_codes(characters))] = True
    return table
