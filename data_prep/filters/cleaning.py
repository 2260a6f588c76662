"""Cleaning: normalise the text of documents, and decide which documents are dropped.

Nearly all text is clean already, and finding that out takes most of the time. So it is found for
many documents at once: spaces to remove in one array of bytes, and all else in what remains without
printable ASCII. The expensive rules run on the few documents that need them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data_prep.config.schema import CleanOptions
from data_prep.errors import UserError
from data_prep.filters.plugins import load_plugin

# Printable ASCII, the space and the newline: the bytes that no rule ever changes.
_ORDINARY = bytes([*range(0x20, 0x7F), 0x0A])
# A byte that UTF-8 does not use, between texts.
_BETWEEN = b"\xff"
# Paragraph ends that become newlines, the only one in the text convention of the readers. "\r\n"
# becomes two, and the empty paragraph between them is removed.
_BREAKS = "\r\u2029"
# All other white space, as `str.isspace` has it. U+2028, vertical tab, form feed and NEL (in web
# text mostly a Windows ellipsis gone wrong) break lines or pages, not necessarily paragraphs.
_SPACES = "\t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u202f\u205f\u3000"
_SPACES += "".join(map(chr, range(0x2000, 0x200B)))
# Category Cc, lone surrogates, the byte order mark, the replacement character. Other format
# characters (Cf) stay: emoji and Persian are spelt with joiners, Arabic and Hebrew with marks.
_CONTROL_RANGES = ((0x00, 0x09), (0x0E, 0x1C), (0x7F, 0x85), (0x86, 0xA0), (0xD800, 0xE000))
_CONTROLS = "".join(chr(code) for start, stop in _CONTROL_RANGES for code in range(start, stop))
_CONTROLS += "\ufeff\ufffd"
# Up to this many different characters are replaced one by one, each at 1/100 of a table's cost.
_FEW = 32
_SPACE_RUNS = re.compile("  +")
# Every character but some frequent ones that are their own NFC and NFKC and never combine with
# the one before (quick check Yes, combining class 0; Unicode Standard Annex 15, section 9).
_MAY_NORMALIZE = re.compile(
    "[^\x00-\x7f\xc0-\xff\u0400-\u0482\u2010\u2012-\u2015\u2018-\u201f\u3001\u3002\u4e00-\u9fff]"
)


class Cleaner:
    """Cleans texts, and decides which to drop.

    White space is always normalised: paragraphs are stripped, empty ones removed, and every
    run of white space inside one becomes a single ASCII space. That is not an option, because
    sentence splitting and the tokenizer's cache rely on it. `unicode="none"` keeps the normal
    form, `control=False` the control characters that are not white space.

    Cleaning is idempotent: a cleaned text stays as it is.
    """

    def __init__(self, options: CleanOptions) -> None:
        self._options = options
        self._replacements = dict.fromkeys(_BREAKS, "\n") | dict.fromkeys(_SPACES, " ")
        if options.control:
            self._replacements |= dict.fromkeys(_CONTROLS, "")
        self._table = str.maketrans(self._replacements)
        self._keep = load_plugin(options.keep, "clean.keep") if options.keep else None

    def clean(self, text: str, counts: Counter[str] | None = None) -> str:
        """Return the cleaned text, which may be empty.

        Args:
            text: a document, in which a newline ends a paragraph.
            counts: incremented: `mended` documents, whose text changed, and
                `short_paragraphs`, dropped for `min_paragraph_chars`.
        """
        return self._clean(text, _unusual([text.encode("utf-8", "surrogatepass")])[0], counts)

    def clean_all(self, texts: Sequence[str], counts: Counter[str]) -> list[str]:
        """Return the cleaned texts, each as `clean` returns it."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        shortened = self._options.min_paragraph_chars > 0
        return [
            self._clean(text, unusual, counts)
            if shortened or blank or (unusual and self._may_change(unusual))
            else text
            for text, unusual, blank in zip(texts, _unusual(encoded), _spaced(encoded), strict=True)
        ]

    def reason_to_drop(self, text: str) -> str | None:
        """Return why a cleaned text is dropped, or None if it is kept.

        The reasons are `empty`, `too_short`, `too_long`, and `rejected` by the recipe's filter.

        Raises:
            UserError: when that filter returns anything but True or False.
        """
        if not text:
            return "empty"
        if len(text) < self._options.min_chars:
            return "too_short"
        if self._options.max_chars is not None and len(text) > self._options.max_chars:
            return "too_long"
        return None if self._keep is None or self._is_kept(text) else "rejected"

    def _clean(self, text: str, unusual: str, counts: Counter[str] | None) -> str:
        cleaned = self._normalize(text, unusual) if unusual else text
        if "  " in cleaned:
            cleaned = _SPACE_RUNS.sub(" ", cleaned)
        paragraphs = [kept for part in cleaned.split("\n") if (kept := part.strip(" "))]
        if self._options.min_paragraph_chars:
            long = [part for part in paragraphs if len(part) >= self._options.min_paragraph_chars]
            if counts is not None:
                counts["short_paragraphs"] += len(paragraphs) - len(long)
            paragraphs = long
        cleaned = "\n".join(paragraphs)
        if counts is not None and cleaned != text:
            counts["mended"] += 1
        return cleaned

    def _normalize(self, text: str, unusual: str) -> str:
        """Return the text with only newlines and spaces as white space, and in normal form."""
        if not _is_printable(unusual):
            text = self._replace(text, self._replacements.keys() & set(unusual))
        # Last: a removed character may have stood between a letter and its accent.
        if self._may_compose(unusual):
            text = unicodedata.normalize(self._options.unicode, text)  # type: ignore[arg-type]
        return text

    def _may_change(self, unusual: str) -> bool:
        return not _is_printable(unusual) or self._may_compose(unusual)

    def _may_compose(self, unusual: str) -> bool:
        return self._options.unicode != "none" and bool(_MAY_NORMALIZE.search(unusual))

    def _replace(self, text: str, found: set[str]) -> str:
        if len(found) > _FEW:
            return text.translate(self._table)
        for character in found:
            text = text.replace(character, self._replacements[character])
        return text

    def _is_kept(self, text: str) -> bool:
        where = f"The filter clean.keep={self._options.keep}, for a document ({text[:60]!r}...),"
        try:
            kept = self._keep(text) if self._keep else True
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{where} raised {type(error).__name__}: {error}; correct it."
            ) from error
        # A filter without a return statement would otherwise drop the whole corpus.
        if not isinstance(kept, bool | np.bool_):
            raise UserError(f"{where} returned {kept!r}: it must return True or False.")
        return bool(kept)


def _unusual(encoded: Sequence[bytes]) -> list[str]:
    """Return of each text the characters that are not printable ASCII, space or newline."""
    rest = _BETWEEN.join([b"", *encoded]).translate(None, _ORDINARY).split(_BETWEEN)[1:]
    return [each.decode("utf-8", "surrogatepass") if each else "" for each in rest]


def _spaced(encoded: Sequence[bytes]) -> list[bool]:
    """Tell of each text whether it may have spaces to remove, or empty paragraphs.

    Those are spaces and newlines beside another one, or at the beginning or the end.
    """
    codes = np.frombuffer(_BETWEEN.join([b"", *encoded, b""]), np.uint8)
    blank = (codes == ord(" ")) | (codes == ord("\n")) | (codes == ord(_BETWEEN))
    found = np.flatnonzero(blank[1:] & blank[:-1])
    ends = np.cumsum([len(each) + 1 for each in encoded], dtype=np.int64)
    owners = np.zeros(len(encoded) + 1, np.bool_)
    # Beside the end of a text, it may be the next one that begins with a space.
    owners[np.searchsorted(ends, np.concatenate([found, found + 1]))] = True
    return owners[:-1].tolist()  # type: ignore[no-any-return]


def _is_printable(unusual: str) -> bool:
    # No white space but the space is printable, and no control character; U+FFFD is.
    return unusual.isprintable() and "\ufffd" not in unusual
