"""Files in other encodings than UTF-8 are read by mark or name, or refused with a hint."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.encodings import detect_encoding
from data_prep.readers.sources import Slice, Source

GERMAN = "Ein schöner Tag in der Straße.\n\nZwei größere Tage.\n"
SAMPLES = {
    "cp1252": GERMAN,
    "gb18030": "今天天气很好，我们去公园散步。\n\n他说：“好的”。\n",
    "shift_jis": "今日は天気がいいですね。\n\n東京へ行きました。\n",
    "euc_jp": "今日は天気がいいですね。\n\n東京へ行きました。\n",
    "euc_kr": "오늘은 날씨가 좋습니다.\n\n우리는 공원에 갔다.\n",
    "big5": "今天天氣很好，我們去公園散步。\n\n臺灣的歷史。\n",
    "cp1251": "Сегодня хорошая погода.\n\nМы пошли в парк.\n",
    "koi8_r": "Сегодня хорошая погода.\n\nМы пошли в парк.\n",
}


def texts(path: Path, step: int = 1 << 30, **options: Any) -> list[str]:
    source = Source(path, path.name, path.stat().st_size)
    chosen = InputOptions(path=path, **options)
    return [
        document.text
        for start in range(0, source.size, step)
        for document in read_documents(
            Slice(source, start, min(start + step, source.size)), chosen, Counter()
        )
    ]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def to_file(content: bytes) -> Path:
        path = tmp_path / "a.txt"
        path.write_bytes(content)
        return path

    return to_file


Write = Callable[[bytes], Path]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("step", [1 << 30, 16])
def test_unicode_is_read_with_and_without_mark(
    write: Write, encoding: str, line_end: str, step: int
) -> None:
    """UTF-16 and UTF-32 are read, marked or not, with any line ends, in any slices."""
    path = write(GERMAN.replace("\n", line_end).encode(encoding))
    assert texts(path, step) == ["Ein schöner Tag in der Straße.", "Zwei größere Tage."]


@pytest.mark.parametrize("encoding", SAMPLES)
def test_legacy_encoding_is_named_and_read(write: Write, encoding: str) -> None:
    """A legacy encoding is refused with its likely name, and read where the recipe names it."""
    text = SAMPLES[encoding]
    for longer in (text, f"Only ASCII.\n\n{text * 200}"):
        path = write(longer.encode(encoding))
        with pytest.raises(UserError, match=rf"is not UTF-8.*may be .*{encoding}.*\.encoding="):
            texts(path)
    path = write(text.encode(encoding))
    assert texts(path, encoding=encoding) == text.strip().split("\n\n")


def test_wrong_encoding_is_refused(write: Write) -> None:
    """An encoding is refused for invalid bytes, and for UTF-8 that it would misread."""
    with pytest.raises(UserError, match=r"is UTF-8, and input\.encoding is cp1252"):
        texts(write(GERMAN.encode()), encoding="cp1252")
    with pytest.raises(UserError, match=r"is not ascii: the byte 0xf6 at byte offset 7"):
        texts(write(GERMAN.encode("cp1252")), encoding="ascii")
    assert (
        "sch\ufffdner"
        in texts(write(GERMAN.encode("cp1252")), encoding="ascii", errors="replace")[0]
    )
    with pytest.raises(ValueError, match="'latin-99' is not an encoding"):
        InputOptions(path=Path("a"), encoding="latin-99")


def test_marked_file_keeps_its_encoding(write: Write) -> None:
    """A byte-order mark is stronger than the recipe, which is for the files without one."""
    for encoding in ("utf-8-sig", "utf-16"):
        assert texts(write(GERMAN.encode(encoding)), encoding="cp1252")[1] == "Zwei größere Tage."


def test_damage_in_utf8_is_no_encoding(write: Write) -> None:
    """One invalid byte among valid UTF-8 is damage, and no other encoding is suggested."""
    with pytest.raises(UserError, match="most of the file is UTF-8"):
        texts(write((GERMAN * 3).encode() + b"caf\xe9 au lait\n"))


def test_marks_left_by_cat_are_removed(write: Write) -> None:
    """Byte-order marks between joined files begin no word, and a line of one alone is blank."""
    path = write("\ufeffOne.\n\n\ufeffTwo.\n\ufeff\nThree\ufeff.\n".encode())
    assert texts(path) == ["One.", "Two.", "Three."]


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i8", "<f4"])
def test_numbers_are_no_text(dtype: str) -> None:
    """Arrays of numbers, such as token ids, are not taken for UTF-16 or UTF-32."""
    import numpy as np

    drawn = np.random.default_rng(0)
    for high in (100, 300, 30_000):
        assert detect_encoding(drawn.integers(0, high, 4000).astype(dtype).tobytes()) == "utf-8"


def test_replaced_bytes_are_counted(write: Write) -> None:
    """With `errors=replace` the documents with replaced bytes are counted, and kept."""
    path = write(b"caf\xe9 au lait\n\ncoffee\n\nth\xe9\n")
    counts: Counter[str] = Counter()
    source = Source(path, path.name, path.stat().st_size)
    chosen = InputOptions(path=path, errors="replace")
    found = [each.text for each in read_documents(Slice(source, 0, source.size), chosen, counts)]
    assert found == ["caf\ufffd au lait", "coffee", "th\ufffd"]
    assert +counts == {"replaced": 2}
