"""File formats that no reader reads, known by the first bytes, with the tool that extracts text."""

import re
from dataclasses import dataclass

from data_prep.readers.storage.magic import LFS_MARK, archive_kind

_EXTRACT = "extract its text first"
_WEB = f"{_EXTRACT}, for example with trafilatura or resiliparse"
_PICTURE = "leave it out with input.pattern, or move it away"
# The first bytes of binary formats, what they are, and the remedy.
_BINARY: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%PDF-", "a PDF file", f"{_EXTRACT}, for example with pdftotext"),
    (0, b"{\\rtf", "an RTF file", f"{_EXTRACT}, for example with `pandoc -t plain`"),
    (0, b"%!PS", "a PostScript file", f"{_EXTRACT}, for example with ps2ascii"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file", f"{_EXTRACT} with LibreOffice"),
    (0, b"\x89PNG\r\n", "a PNG image", _PICTURE),
    (0, b"\xff\xd8\xff", "a JPEG image", _PICTURE),
    (0, b"GIF8", "a GIF image", _PICTURE),
    (0, b"II*\x00", "a TIFF image", _PICTURE),
    (0, b"MM\x00*", "a TIFF image", _PICTURE),
    (8, b"WEBP", "a WebP image", _PICTURE),
    (8, b"WAVE", "a sound file", _PICTURE),
    (0, b"ID3", "a sound file", _PICTURE),
    (0, b"OggS", "a sound file", _PICTURE),
    (0, b"fLaC", "a sound file", _PICTURE),
    (4, b"ftyp", "a video file", _PICTURE),
    (0, b"\x1aE\xdf\xa3", "a video file", _PICTURE),
    (0, b"\x7fELF", "a program", _PICTURE),
    (0, b"\xcf\xfa\xed\xfe", "a program", _PICTURE),
    (0, b"\xca\xfe\xba\xbe", "a program", _PICTURE),
    (0, b"SQLite format 3\x00", "a SQLite database", "export its text as JSON lines or CSV"),
    (0, b"\x93NUMPY", "a NumPy array", "export its text as JSON lines"),
    (0, b"\x89HDF\r\n", "an HDF5 file", "export its text as JSON lines or Parquet"),
    (0, b"Obj\x01", "an Avro file", "convert it to Parquet or JSON lines"),
    (0, b"ORC", "an ORC file", "convert it to Parquet"),
    (0, b"GGUF", "a model's weights", _PICTURE),
    (0, b"SEQ\x06", "a Hadoop sequence file", "convert it to Parquet or JSON lines"),
)
_ANY_MARK = re.compile(
    b"|".join(b".{%d}%s" % (at, re.escape(magic)) for at, magic, _, _ in _BINARY), re.DOTALL
)
# Marks that are words could begin a text; what they mark has NUL bytes soon after them.
_MARK_BYTES = 512
_SAFETENSORS = re.compile(rb".{4}\x00{4}\{\"", re.DOTALL)
_PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95.{8}|[}\](cX\x8c])", re.DOTALL)
_OFFICE = re.compile(rb"\[Content_Types\]\.xml|_rels/\.rels|mimetypeapplication/")
_NAME_BYTES = 128  # where a zip archive names its first file
# Text formats, at the beginning of a file or after a comment.
_COMMENTS = rb"\s*(?:<!--.*?-->\s*)*"
_HTML = re.compile(
    _COMMENTS + rb"<(?:!doctype\s+html|(?:html|head|body|title|meta|script|style|frameset)\b)",
    re.IGNORECASE | re.DOTALL,
)
# A part of a page: it begins with a tag of HTML and has several that end.
_HTML_PART = re.compile(
    _COMMENTS + rb"<(?:p|div|span|table|ul|ol|h[1-6]|a|br|img|article|section|main|link)[\s/>]",
    re.IGNORECASE | re.DOTALL,
)
_END_TAG = re.compile(rb"</[a-zA-Z][a-zA-Z0-9]*>")
_MIN_END_TAGS = 3
_WIKI_DUMP = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<(?:mediawiki|siteinfo)\b")
_XML = re.compile(_COMMENTS + rb"<(?:\?xml\b|!doctype\s+\w|!ENTITY\b|(?:svg|rss|feed|TEI|tei)\b)")
_WARC = re.compile(rb"\s*WARC/\d")
_FIRST_CHARACTERS = (b"<", b"W", b"v")


@dataclass(frozen=True, slots=True)
class Signature:
    """A format that is not read: what it is, what to do, and whether it is binary."""

    name: str
    remedy: str
    binary: bool


LFS_POINTER = Signature("a pointer of Git LFS, not the file", "run `git lfs pull`", True)


def signature_of(head: bytes) -> Signature | None:
    """Return the format of a file if its first bytes show one that is not read, else None.

    Args:
        head: the first bytes as they are in the file, decompressed.
    """
    if _PICKLE.match(head):
        return Signature("a Python pickle", "export its text as JSON lines or Parquet", True)
    if _SAFETENSORS.match(head):
        return Signature("a model's weights", _PICTURE, True)
    if archive := archive_kind(head):
        if archive == "zip" and _OFFICE.search(head[:_NAME_BYTES]):
            remedy = f"{_EXTRACT}, for example with `pandoc -t plain`"
            return Signature("an Office file or e-book", remedy, True)
        article = "an" if archive[0] in "aeioux" else "a"
        return Signature(f"{article} {archive} archive", "unpack it", True)
    for at, magic, name, remedy in _BINARY if _ANY_MARK.match(head) else ():
        if head.startswith(magic, at):
            markup = magic.startswith((b"%PDF", b"{\\rtf", b"%!PS"))
            if markup or not magic.isalnum() or b"\x00" in head[:_MARK_BYTES]:
                return Signature(name, remedy, not magic.startswith((b"{\\rtf", b"%!PS")))
    return text_signature_of(head)


def text_signature_of(head: bytes) -> Signature | None:
    """Return the format of a text file if it is not prose; UTF-8 may begin with white space."""
    if head.lstrip()[:1] not in _FIRST_CHARACTERS:
        return None
    if _WIKI_DUMP.match(head):
        remedy = "run WikiExtractor on it"
        return Signature("a Wikipedia dump", remedy, False)
    if _HTML.match(head) or (
        _HTML_PART.match(head) and len(_END_TAG.findall(head)) >= _MIN_END_TAGS
    ):
        return Signature("an HTML page", _WEB, False)
    if _XML.match(head):
        return Signature("an XML file", _EXTRACT, False)
    if _WARC.match(head):
        return Signature("a WARC file of web pages", _WEB, False)
    if head.startswith(LFS_MARK):
        return LFS_POINTER
    return None
