"""Encodings of text files: found by their marks, read as UTF-8, and guessed for error messages.

Everything above this file reads UTF-8 whose lines end in a newline; other files are converted while
they are read, block by block.
"""

import codecs
import re
import unicodedata
from typing import Literal

from data_prep.errors import UserError
from data_prep.readers.sources import Source
from data_prep.readers.storage.compression import Readable, open_bytes

BOM = b"\xef\xbb\xbf"
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    BOM: "utf-8",
    b"\xff\xfe\x00\x00": "utf-32-le",
    b"\x00\x00\xfe\xff": "utf-32-be",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
}
_SAMPLE_BYTES = 4096
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
# Text in a wide encoding has spaces, which binary data hardly has at the same width. East Asian
# text has none, and cannot be told from Shift-JIS read as UTF-16: it needs a mark.
_MIN_SPACE_SHARE = 0.05
_LONE_CR = re.compile(rb"\r(?!\n)")
# Legacy encodings, each with the characters that text in it mostly has outside ASCII.
_CANDIDATES = {
    "euc_kr": "[\uac00-\ud7a3]",
    "shift_jis": "[\u3040-\u30ff\u4e00-\u9fff\u3001-\u3002\uff01-\uff60]",
    "euc_jp": "[\u3040-\u30ff\u4e00-\u9fff\u3001-\u3002]",
    "gb18030": "[\u4e00-\u9fff\u3001-\u3002\uff00-\uff1f\u201c\u201d]",
    "big5": "[\u4e00-\u9fff\u3001-\u3002\uff00-\uff1f]",
    "cp1251": "[\u0430-\u044f]",
    "koi8_r": "[\u0430-\u044f]",
    "cp1252": "[\xc0-\xff\u2013\u2014\u2018-\u201d\u2026]",
}
_MIN_SCORE = 0.6
_CONTEXT_BYTES = 2000
_MIN_UTF8_CHARACTERS = 3
_MIN_UTF8_SHARE = 0.8


def detect_encoding(head: bytes) -> str:
    """Return the encoding of a file with these first bytes: UTF-8, or what a mark or NULs show."""
    if marked := marked_encoding(head):
        return marked
    sample = head[: min(_SAMPLE_BYTES, len(head) // 4 * 4)]
    if sample.count(0) * 20 < len(sample) or not sample:
        return "utf-8"
    return next((name for name in _WIDE if _is_prose(sample, name)), "utf-8")


def is_utf8(head: bytes) -> bool:
    """Tell whether bytes are UTF-8, apart from an incomplete character at their end."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.end == len(head) and len(head) - error.start < 4
    return True


def marked_encoding(head: bytes) -> str | None:
    """Return the encoding that the byte-order mark of a file shows, or None without a mark."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


def open_source(source: Source, errors: Literal["strict", "replace"]) -> Readable:
    """Open a file for reading UTF-8 whose lines end in a newline, whatever is on the disk."""
    file = open_bytes(source.path)
    if source.encoding != "utf-8":
        file = _Transcoded(file, source, errors)
    return _NewlinesForReturns(file) if source.cr_lines else file


def as_utf8(head: bytes, encoding: str) -> bytes:
    """Return the first bytes of a file as UTF-8, without an incomplete character at their end."""
    if encoding == "utf-8":
        return head
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return decoder.decode(head).encode("utf-8", "replace")


def contradicts(head: bytes, encoding: str) -> bool:
    """Tell whether bytes are UTF-8 and not ASCII, though a legacy encoding is given for them.

    A single-byte encoding would read them without an error, and wrongly.
    """
    if codecs.lookup(encoding).name.startswith("utf") or head.isascii():
        return False
    text = head.decode("utf-8", "ignore")
    valid = len(text.encode()) > len(head) - 4
    return valid and sum(char > "\x7f" for char in text) >= _MIN_UTF8_CHARACTERS


def encoding_hint(before: bytes, raw: bytes) -> str:
    """Return what may be done about bytes that are not UTF-8, as part of a sentence.

    The likely encodings are those in which the text has the letters of a language. A file with
    valid UTF-8 beside invalid bytes has no other encoding.

    Args:
        before: what the file holds before the invalid bytes, or some of it, and these.
        raw: the text that is invalid.
    """
    valid = [char for char in before.decode("utf-8", "ignore") if char > "\x7f"]
    share = len("".join(valid).encode()) / max(1, sum(byte > 0x7F for byte in before))
    if len(valid) >= _MIN_UTF8_CHARACTERS and share > _MIN_UTF8_SHARE:
        return "most of the file is UTF-8 and this is damage; repair it"
    sample = before[-_CONTEXT_BYTES:] + b"\n" + raw[:_CONTEXT_BYTES]
    scores = {name: _score(sample, name) for name in _CANDIDATES}
    likely = sorted(
        (name for name in scores if scores[name] >= _MIN_SCORE), key=lambda name: -scores[name]
    )
    if not likely:
        return "set input.encoding to the encoding of the file, convert it"
    return f"it may be {' or '.join(likely[:2])}: set input.encoding={likely[0]}, convert the file"


class _Transcoded:
    """A file in another encoding, read as UTF-8 from its beginning."""

    def __init__(
        self, file: Readable, source: Source, errors: Literal["strict", "replace"]
    ) -> None:
        self._file = file
        self._source = source
        self._decoder = codecs.getincrementaldecoder(source.encoding)(errors)
        self._read_bytes = 0

    def read(self, size: int, /) -> bytes:
        while True:
            raw = self._file.read(size)
            self._read_bytes += len(raw)
            try:
                text = self._decoder.decode(raw, not raw)
            except UnicodeError as error:
                raise self._invalid(error) from error
            if text or not raw:
                return text.encode("utf-8", "replace")

    def seek(self, offset: int, /) -> int:
        raise ValueError(f"{self._source.path} is converted and read from its beginning")

    def close(self) -> None:
        self._file.close()

    def _invalid(self, error: UnicodeError) -> UserError:
        where = ""
        if isinstance(error, UnicodeDecodeError):
            offset = self._read_bytes - len(error.object) + error.start
            where = (
                f": the byte 0x{error.object[error.start]:02x} at byte offset {offset} is invalid"
            )
        return UserError(
            f"{self._source.path} is not {self._source.encoding}{where}; correct input.encoding, "
            "convert the file, or replace such bytes by U+FFFD with --errors replace."
        )


class _NewlinesForReturns:
    """A file whose lines end in carriage returns (classic Mac OS), read with newlines instead."""

    def __init__(self, file: Readable) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        block = self._file.read(size)
        # Whether the last return stands alone is known from the next byte.
        while block.endswith(b"\r") and (more := self._file.read(1)):
            block += more
        if b"\n" not in block:
            return block.replace(b"\r", b"\n")
        return _LONE_CR.sub(b"\n", block)

    def seek(self, offset: int, /) -> int:
        return self._file.seek(offset)

    def close(self) -> None:
        self._file.close()


def _is_prose(sample: bytes, encoding: str) -> bool:
    """Tell whether bytes decode to characters of text, not to arbitrary ones."""
    # The sample may end in the middle of a surrogate pair.
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
    if not text or "\ufffd" in text:
        return False
    spaces = sum(map(text.count, " \n\t\r"))
    unusual = sum(unicodedata.category(char) in ("Cc", "Cn", "Co") for char in text)
    controls = unusual - sum(map(text.count, "\n\t\r"))
    return spaces >= _MIN_SPACE_SHARE * len(text) and controls <= 0.01 * len(text)


def _score(sample: bytes, encoding: str) -> float:
    """Return the share of the characters outside ASCII that are usual in an encoding."""
    # The sample may begin or end inside a character.
    text = sample.decode(encoding, "replace")
    wide = [char for char in text[2:-2] if char > "\x7f"] or [
        char for char in text if char > "\x7f"
    ]
    if not wide:
        return 0.0
    usual = re.findall(_CANDIDATES[encoding], "".join(wide))
    share = len(usual) / len(wide)
    if encoding == "cp1252":
        # Letters of other scripts look like rows of accented ones.
        return share - sum(map(len, re.findall(r"[\xc0-\xff]{3,}", text))) / len(wide)
    # Accented letters look like letters of other scripts between ASCII letters.
    return share - len(re.findall(r"[A-Za-z][^\x00-\x7f][A-Za-z]", text)) / len(wide)
