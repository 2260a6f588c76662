"""Exact match and F1 of answers, as the scripts of SQuAD 1.1 and 2.0 compute them.

Both compare normalised text: lower case, without punctuation and articles. Chinese is written
without spaces, so each of its characters counts as a word, as in the scripts of CMRC and MLQA.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = set(string.punctuation)
# Han characters, and the kana and Hangul of texts that mix them.
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def exact_match(found: str, answers: Sequence[str]) -> float:
    """Return 1 if a text is one of the right answers; no answer is "", and right if none are."""
    return float(any(_words(found) == _words(answer) for answer in answers or ("",)))


def best_f1(found: str, answers: Sequence[str]) -> float:
    """Return the best F1 of shared words with a right answer."""
    return max(_f1(_words(found), _words(answer)) for answer in answers or ("",))


def _f1(found: Sequence[str], answer: Sequence[str]) -> float:
    if not found or not answer:  # no answer is right or wrong, nothing between
        return float(found == answer)
    shared = sum((Counter(found) & Counter(answer)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(found), shared / len(answer)
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    has_ideographs = bool(_IDEOGRAPH.search(text))
    kept = "".join(c for c in text.lower() if not _is_punctuation(c, has_ideographs))
    if has_ideographs:
        kept = _IDEOGRAPH.sub(r" \g<0> ", kept)
    return _ARTICLES.sub(" ", kept).split()


def _is_punctuation(character: str, of_ideographs: bool) -> bool:
    # The script for English removes the punctuation of ASCII alone.
    if character in _ASCII_PUNCTUATION:
        return True
    return of_ideographs and unicodedata.category(character).startswith("P")
