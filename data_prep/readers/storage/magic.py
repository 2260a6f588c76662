"""Archives and compressions, known by the first bytes of a file.

A file is refused by what it is, whatever its name: an archive holds several files, and its headers
are no text.
"""

import re

# The first bytes of what stands for a file in a clone without Git LFS.
LFS_MARK = b"version https://git-lfs.github.com/spec/"
# As many first bytes as the mark of a compression, or the header of a Zstandard frame, may take.
MAGIC_BYTES = 18
_TAR_HEADER_BYTES = 512
_TAR_CHECKSUM = slice(148, 156)
_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # without a file in it
    b"PK\x07\x08": "zip",  # in several volumes
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"!<arch>\n": "ar",
    b"MSCF\x00\x00\x00\x00": "cab",
    b"xar!\x00\x1c": "xar",
}
# The mark and the numbers of a first header; a text may begin with a mark alone.
_CPIO = re.compile(rb"07070[12][0-9A-Fa-f]{104}|070707[0-7]{70}")
# After "BZh" and a digit: the mark of the first block, or of the end of an empty stream.
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",  # of its first versions
    b"\x1f\x9d": "compress (.Z)",
    b"\x1f\xa0": "compress (.Z)",
    b"LZIP\x01": "lzip",
    b"\x89LZO\x00": "lzop",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    # The usual properties, and a dictionary of 64 KiB or more (lzma-file-format.txt of xz).
    b"]\x00\x00\x00": "lzma",
    b"]\x00\x00\x01": "lzma",
    b"]\x00\x00\x04": "lzma",
    b"]\x00\x00\x08": "lzma",
    b"]\x00\x00\x10": "lzma",
    b"]\x00\x00\x20": "lzma",
    b"]\x00\x00\x40": "lzma",
    b"]\x00\x00\x80": "lzma",
}


def archive_kind(head: bytes) -> str | None:
    """Return which archive a file is, such as "tar" or "zip", or None.

    Args:
        head: the first 512 bytes of the file or more, after decompression.
    """
    if _is_tar_header(head[:_TAR_HEADER_BYTES]):
        return "tar"
    if _CPIO.match(head):
        return "cpio"
    if not head.startswith(tuple(_ARCHIVES)):
        return None
    return next(kind for magic, kind in _ARCHIVES.items() if head.startswith(magic))


def compression_kind(head: bytes) -> str | None:
    """Return how a file with these first bytes is compressed, such as "gzip", or None.

    Brotli has no mark of its own, so it is known by the name of a file alone.
    """
    if _is_zstandard_skippable(head):
        return "Zstandard"
    if _BZIP2.match(head):
        return "bzip2"
    if not head.startswith(tuple(_COMPRESSIONS)):
        return None
    return next(kind for magic, kind in _COMPRESSIONS.items() if head.startswith(magic))


def _is_tar_header(header: bytes) -> bool:
    """Tell by the checksum, which tar archives without the mark `ustar` have too."""
    if len(header) < _TAR_HEADER_BYTES or not header[0]:
        return False
    stored = header[_TAR_CHECKSUM].strip(b"\x00 ")
    if not stored or stored.translate(None, b"01234567"):
        return False
    blank = header[: _TAR_CHECKSUM.start] + b" " * 8 + header[_TAR_CHECKSUM.stop :]
    # Some old programs summed signed bytes.
    signed = sum(blank) - 256 * sum(byte > 127 for byte in blank)
    return int(stored, 8) in (sum(blank), signed)


def _is_zstandard_skippable(head: bytes) -> bool:
    """Tell a skippable frame (RFC 8878, 3.1.2), with which parallel compressors begin a file."""
    return 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18" if len(head) >= 4 else False
