"""Training text of a WordPiece: without words that can only become [UNK], in short pieces.

Training takes time quadratic in the length of a word, and memory in proportion to the longest
piece: 100 bytes a byte. BERT's model makes [UNK] of a word above 100 characters, so such a word
(a sequence of DNA, base64, a minified line) has nothing to teach.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from tokenizers import pre_tokenizers

from data_prep.progress import log
from data_prep.tokenizers.folder import MAX_WORD_CHARS

# Normalising a character gives at most four: the parts of a Greek letter with three marks.
_MEASURED_FROM = MAX_WORD_CHARS // 4 + 1
# A run above this is not measured: nearly all of it would have to be marks that are dropped.
_MEASURED_CHARS = 2_000
_PIECE_CHARS = 2 * _MEASURED_CHARS
_SPLIT_CHARS = 1 << 20  # the words of a longer text take too much memory
# Ideographs that BERT sets apart, from its normalizer.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_BERT = pre_tokenizers.BertPreTokenizer()
_LAST_IDEOGRAPH = 0x2FA1F  # no punctuation and no space is above it


class TrainingText:
    """Texts without their overlong words, and how many of these were left out.

    Args:
        texts: returns an iterator over the texts.
        normalize: as the tokenizer does before it splits words.

    Attributes:
        left_out: overlong words of the last complete pass.
    """

    def __init__(self, texts: Callable[[], Iterable[str]], normalize: Callable[[str], str]) -> None:
        self._texts = texts
        self._normalize = normalize
        self.left_out = 0

    def pieces(self) -> Iterator[str]:
        """Yield the texts in pieces of at most 4,000 characters, cut between words."""
        self.left_out = 0
        for text in self._texts():
            yield from _cut(self._without_long_words(text))

    def report(self) -> None:
        """Log how many words were left out."""
        if self.left_out:
            log(
                f"{self.left_out:,} words of more than {MAX_WORD_CHARS} characters are left out of "
                "training: they become [UNK]"
            )

    def _without_long_words(self, text: str) -> str:
        # Almost all texts of spaced scripts have no long run even between spaces, which is faster
        # to find out than any regular expression.
        short = len(text) <= _SPLIT_CHARS
        if short and max(map(len, text.split()), default=0) < _MEASURED_FROM:
            return text
        return _patterns()[0].sub(self._replace, text)

    def _replace(self, run: re.Match[str]) -> str:
        word = run[0]
        if len(word) <= _MEASURED_CHARS and len(self._normalize(word).strip()) <= MAX_WORD_CHARS:
            return word
        self.left_out += 1
        return " "


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what matches a run that may be too long a word, and a piece of a text.

    A piece is as much as fits, up to a character that ends words; there is one, because no word is
    longer than a piece.
    """
    ends = _ends_words()
    return (
        re.compile(f"[^{ends}]{{{_MEASURED_FROM},}}"),
        re.compile(f"(?s).{{1,{_PIECE_CHARS}}}(?=[{ends}]|\\Z)|.{{1,{_PIECE_CHARS}}}"),
    )


def _ends_words() -> str:
    """Return the characters around which BERT splits words, as a class of a regular expression."""
    ranges: list[tuple[int, int]] = []
    for code in range(_LAST_IDEOGRAPH + 1):
        if _is_separate(code):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1] = (ranges[-1][0], code)
            else:
                ranges.append((code, code))
    return "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges)


def _is_separate(code: int) -> bool:
    character = chr(code)
    if any(first <= code <= last for first, last in _IDEOGRAPHS) or character in "\t\n\r":
        return True
    category = unicodedata.category(character)
    # The library and Python know the punctuation of different versions of Unicode.
    if category[0] == "P" or (code < 0x80 and category[0] == "S"):
        return len(_BERT.pre_tokenize_str(f"a{character}a")) > 1
    return category[0] == "Z"


def _cut(text: str) -> Iterator[str]:
    if len(text) <= _PIECE_CHARS:
        yield text
        return
    for piece in _patterns()[1].finditer(text):
        yield piece[0]
