"""Cleaning: normalise the text of documents, and decide which documents are dropped.

Nearly all text is clean already, and finding that out takes most of the time. So each document is
first reduced to its characters outside printable ASCII, and only these are examined; the expensive
rules run on the few documents that need them.
"""

import re
import unicodedata
from collections import Counter

import numpy as np

from data_prep.config.schema import CleanOptions
from data_prep.errors import UserError
from data_prep.filters.plugins import load_plugin

# Printable ASCII, the space and the newline: the bytes that no rule ever changes.
_ORDINARY = bytes([*range(0x20, 0x7F), 0x0A])
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
        cleaned = self._normalize(text)
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

    def _normalize(self, text: str) -> str:
        """Return the text with only newlines and spaces as white space, and in normal form."""
        unusual = _without_ordinary(text)
        if not unusual:
            return text
        # No white space but the space is printable, and no control character; U+FFFD is.
        if not unusual.isprintable() or "\ufffd" in unusual:
            text = self._replace(text, self._replacements.keys() & set(unusual))
        # Last: a removed character may have stood between a letter and its accent.
        if self._options.unicode != "none" and _MAY_NORMALIZE.search(unusual):
            text = unicodedata.normalize(self._options.unicode, text)
        return text

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


def _without_ordinary(text: str) -> str:
    """Return the characters that are not printable ASCII, space or newline, in their order."""
    rest = text.encode("utf-8", "surrogatepass").translate(None, _ORDINARY)
    return rest.decode("utf-8", "surrogatepass")
