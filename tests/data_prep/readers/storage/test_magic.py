"""Archives and compressions are known by their first bytes."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
import zstandard

from data_prep.readers.storage.magic import archive_kind, compression_kind


def tar_of(format: int, name: str = "book.txt") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        member = tarfile.TarInfo(name)
        member.size = 5
        archive.addfile(member, io.BytesIO(b"words"))
    return file.getvalue()


def without_mark(archive: bytes) -> bytes:
    """Return an archive as the tar of Unix V7 wrote it, without `ustar` in its header."""
    header = bytearray(archive[:512])
    header[257:512] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + archive[512:]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_is_known_by_checksum(format: int) -> None:
    """A tar archive is known in each of its formats, also without the mark of later ones."""
    archive = tar_of(format, "café.txt" if format == tarfile.PAX_FORMAT else "book.txt")
    assert archive_kind(archive[:512]) == "tar"
    assert archive_kind(without_mark(tar_of(tarfile.USTAR_FORMAT))) == "tar"


def test_zip_is_known_when_empty() -> None:
    """A zip archive is known, also one without a file in it."""
    full, empty = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(full, "w") as archive:
        archive.writestr("a.txt", "words")
    zipfile.ZipFile(empty, "w").close()
    assert archive_kind(full.getvalue()) == archive_kind(empty.getvalue()) == "zip"


def test_cpio_is_known_by_its_header() -> None:
    """A cpio archive begins with a mark and numbers; a text may begin with the mark alone."""
    assert archive_kind(b"070701" + b"0000A1b2" * 13 + b"book.txt") == "cpio"
    assert archive_kind(b"070707" + b"01234567" * 8 + b"012345" + b"book.txt") == "cpio"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"PK",
        b"text " * 200,
        bytes(600),
        b"7zip is a program",
        b"Rar! he cried. " * 50,
        b"BZh and LZIP are words",
        b"070701 was the number. " * 30,
    ],
)
def test_text_is_no_archive(head: bytes) -> None:
    """Text and zeros are no archive."""
    assert archive_kind(head) is None
    assert compression_kind(head) is None


def test_compressions_are_told_apart() -> None:
    """Compressed files are known by their first bytes."""
    skippable = b"\x5f\x2a\x4d\x18" + (4).to_bytes(4, "little") + bytes(4)
    made = {
        "gzip": [gzip.compress(b"words")],
        "xz": [lzma.compress(b"words")],
        "bzip2": [bz2.compress(b"words"), bz2.compress(b"")],
        "Zstandard": [zstandard.compress(b"words"), skippable],
        "lzma": [lzma.compress(b"words", lzma.FORMAT_ALONE)],
        "lz4": [b"\x04\x22\x4d\x18" + bytes(9)],
        "compress (.Z)": [b"\x1f\x9d\x90" + bytes(9)],
    }
    assert {kind: compression_kind(head) for kind, heads in made.items() for head in heads} == {
        kind: kind for kind in made
    }
