"""Compressed files are read to their last member, or refused: none ends early in silence."""

import bz2
import gzip
import lzma
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from data_prep.errors import UserError
from data_prep.readers.storage.compression import open_bytes, uncompressed_name

Compress = Callable[[bytes], bytes]
TEXTS = tuple(b"".join(b"line %d of text %d\n" % (n, k) for n in range(4000)) for k in range(3))
COMPRESS: dict[str, Compress] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
TOOLS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"


def read(path: Path, size: int = 1 << 16) -> bytes:
    file = open_bytes(path)
    blocks = []
    while block := file.read(size):
        assert len(block) <= size
        blocks.append(block)
    file.close()
    return b"".join(blocks)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def assert_tool_agrees(path: Path, text: bytes) -> None:
    """Compare with the output of the format's own tool, where it is installed."""
    if tool := shutil.which(TOOLS[path.suffix]):
        done = subprocess.run([tool, "-dc", str(path)], capture_output=True, check=True)
        assert done.stdout == text


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_all_members_are_read(suffix: str, size: int, tmp_path: Path) -> None:
    """A file of several members, as `cat` and parallel compressors write it, is read whole."""
    path = write(tmp_path / f"a{suffix}", b"".join(map(COMPRESS[suffix], (*TEXTS, b"", b"end"))))
    assert read(path, size) == b"".join(TEXTS) + b"end"
    assert_tool_agrees(path, b"".join(TEXTS) + b"end")


@pytest.mark.parametrize(
    ("suffix", "zeros"), [(".gz", 7), (".gz", 1024), (".bz2", 512), (".xz", 8)]
)
def test_zero_padding_is_no_data(suffix: str, zeros: int, tmp_path: Path) -> None:
    """Zeros behind the last member are padding, as the tools of the formats take them."""
    path = write(tmp_path / f"a{suffix}", COMPRESS[suffix](TEXTS[0]) + bytes(zeros))
    assert read(path) == TEXTS[0]


@pytest.mark.parametrize("between", [4, 8, 1 << 20])
def test_xz_stream_padding(between: int, tmp_path: Path) -> None:
    """Padding between xz streams is read over; padding not in fours is refused."""
    first, second = map(lzma.compress, TEXTS[:2])
    path = write(tmp_path / "a.xz", first + bytes(between) + second + bytes(4))
    assert read(path) == TEXTS[0] + TEXTS[1]
    assert_tool_agrees(path, TEXTS[0] + TEXTS[1])
    write(path, first + bytes(between + 1) + second)
    with pytest.raises(UserError, match=r"a\.xz is not a complete xz file \(.* padding is in fou"):
        read(path)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_trailing_garbage_is_refused(suffix: str, tmp_path: Path) -> None:
    """What follows the last member is refused with its offset, not ignored."""
    compressed = COMPRESS[suffix](TEXTS[0])
    path = write(tmp_path / f"a{suffix}", compressed + b"<html>502 Bad Gateway</html>")
    with pytest.raises(
        UserError, match=rf"follows at byte offset {len(compressed)} is damaged; `head -c"
    ):
        read(path)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_damage_is_never_an_end(suffix: str, tmp_path: Path) -> None:
    """A flipped byte in any member is refused, or changes nothing."""
    first, second = map(COMPRESS[suffix], TEXTS[:2])
    whole = first + second
    for at in [*range(len(first), len(first) + 12), *range(4, len(whole), len(whole) // 40)]:
        content = bytearray(whole)
        content[at] ^= 0x41
        path = write(tmp_path / f"a{suffix}", bytes(content))
        try:
            found = read(path)
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        else:
            assert found == TEXTS[0] + TEXTS[1], at  # a name or date in a head


@pytest.mark.parametrize("suffix", COMPRESS)
def test_every_truncation_is_refused(suffix: str, tmp_path: Path) -> None:
    """A file that ends inside any member is refused, wherever it ends."""
    first, second = map(COMPRESS[suffix], (b"words " * 50, b"others " * 50))
    whole = first + second
    for length in range(1, len(whole)):
        path = write(tmp_path / f"a{suffix}", whole[:length])
        if length == len(first):
            assert read(path) == b"words " * 50
            continue
        with pytest.raises(UserError, match=r"is not an? (complete )?\w+ file"):
            read(path)


def test_zstandard_skips_frames_without_text(tmp_path: Path) -> None:
    """Skippable frames are read over, also as the first and the last."""
    compress = COMPRESS[".zst"]
    frames = (SKIPPABLE, compress(TEXTS[0]), SKIPPABLE, SKIPPABLE, compress(TEXTS[1]), SKIPPABLE)
    path = write(tmp_path / "a.zst", b"".join(frames))
    assert read(path) == TEXTS[0] + TEXTS[1]
    assert_tool_agrees(path, TEXTS[0] + TEXTS[1])
    with pytest.raises(UserError, match="middle of a frame"):
        read(write(path, b"".join(frames)[:-1]))


@pytest.mark.parametrize("log", [27, 28, 31])
def test_zstandard_long_windows_are_read(log: int, tmp_path: Path) -> None:
    """Files of `zstd --long=31` are read, which the tool itself refuses without that option."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=log, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = stream.compress(TEXTS[0]) + stream.flush()
    assert zstandard.get_frame_parameters(content).window_size == 1 << log
    assert read(write(tmp_path / "a.zst", content)) == TEXTS[0]


def test_repetitive_text_takes_bounded_memory(tmp_path: Path) -> None:
    """Text that compresses a thousandfold is still returned in small blocks."""
    text = b"a" * (64 << 20)
    for suffix in (".gz", ".bz2", ".xz", ".zst"):
        path = write(tmp_path / f"a{suffix}", COMPRESS[suffix](text))
        file = open_bytes(path)
        total = 0
        while block := file.read(1 << 16):
            assert len(block) <= 1 << 16
            total += len(block)
        assert total == len(text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gz", b"plain words", r"a\.gz is not a gzip file, .*: take \.gz off its name"),
        (
            "a.gz",
            zstandard.compress(b"x"),
            r"not a gzip file, .* but Zstandard: .* ending in \.zst",
        ),
        (
            "a.xz",
            gzip.compress(b"x"),
            r"not an xz file, .* but gzip: give it a name ending in \.gz",
        ),
        ("a.zst", b"\x04\x22\x4d\x18" + bytes(20), r"not a Zstandard file, .* but lz4: decompress"),
        ("a.lz4", b"\x04\x22\x4d\x18" + bytes(20), r"compressed with lz4, .*cannot be read"),
        ("a.txt.br", b"\x0b\x02\x80words\x03", r"compressed with Brotli, .*cannot be read"),
        ("a.Z", b"\x1f\x9d\x90", r"compressed with compress \(\.Z\), .*cannot be read"),
        ("a.lzma", lzma.compress(b"x", lzma.FORMAT_ALONE), r"compressed with lzma, .*cannot be"),
    ],
)
def test_other_compressions_are_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    """A wrong suffix and a compression that cannot be read are told from damage."""
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / name, content))


def test_suffixes_in_capitals_count(tmp_path: Path) -> None:
    """Suffixes are known in capitals, and those of archives are decompressed."""
    assert read(write(tmp_path / "A.TXT.GZ", gzip.compress(TEXTS[0]))) == TEXTS[0]
    assert uncompressed_name("A.TXT.GZ") == "A.TXT" and uncompressed_name("a.tgz") == "a.tar"


def test_raw_deflate_is_no_gzip(tmp_path: Path) -> None:
    """A stream of zlib with the name of a gzip file is refused."""
    with pytest.raises(UserError, match="not a gzip file"):
        read(write(tmp_path / "a.gz", zlib.compress(TEXTS[0])))


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    """A file that vanished, or cannot be opened, is refused by name."""
    with pytest.raises(UserError, match=r"a\.txt cannot be read \(No such file"):
        open_bytes(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        open_bytes(tmp_path)
