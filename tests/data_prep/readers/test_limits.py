"""Documents of any length take bounded memory, and everything dropped is counted."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.sources import Slice, Source

ROOT = Path(__file__).parents[3]


def read(path: Path, **options: Any) -> tuple[list[str], Counter[str]]:
    counts: Counter[str] = Counter()
    size = path.stat().st_size
    piece = Slice(Source(path, path.name, size), 0, size)
    chosen = InputOptions(path=path, max_document_chars=100, **options)
    return [document.text for document in read_documents(piece, chosen, counts)], counts


def write(path: Path, kind: str, documents: list[str]) -> Path:
    if kind == "text":
        path.write_text("\n\n".join(documents))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    else:
        path.write_text("".join(f'<doc title="T">\n{text}\n</doc>\n' for text in documents))
    return path


@pytest.mark.parametrize("kind", ["text", "jsonl", "wikiextractor"])
def test_divided_document_keeps_text(kind: str, tmp_path: Path) -> None:
    """A divided document keeps all of its text in order."""
    long = "\n".join(f"paragraph {n} of a long one" for n in range(40))
    path = write(tmp_path / "file", kind, ["short one", long, "short two"])
    texts, counts = read(path, kind=kind, newline="paragraph")
    assert texts[0] == "short one" and texts[-1] == "short two" and len(texts) > 10
    assert all(len(text) <= 100 for text in texts)
    assert "\n".join(text.strip() for text in texts[1:-1]) == long, "it is cut at paragraphs"
    assert counts == {"divided": 1}


@pytest.mark.parametrize("kind", ["text", "jsonl", "wikiextractor"])
def test_long_document_drop_or_refuse(kind: str, tmp_path: Path) -> None:
    """A long document can be dropped or refused."""
    path = write(tmp_path / "file", kind, ["short one", "word " * 99, "short two"])
    texts, counts = read(path, kind=kind, long_documents="drop")
    assert texts == ["short one", "short two"] and counts == {"too_long": 1}
    with pytest.raises(
        UserError, match=r"more than 100 characters: divide it, raise input\.max_doc"
    ):
        read(path, kind=kind, long_documents="refuse")


@pytest.mark.parametrize("unit", ["x", "漢", "🙂", "word "])
def test_unbroken_text_is_cut(unit: str, tmp_path: Path) -> None:
    """A text without paragraphs is cut at spaces, or anywhere."""
    path = write(tmp_path / "file", "text", [unit * 777])
    texts, counts = read(path, kind="text")
    assert "".join(texts).replace(" ", "") == unit.strip() * 777
    assert all(len(text) <= 100 for text in texts) and counts == {"divided": 1}
    if unit == "word ":
        assert {word for text in texts for word in text.split()} == {"word"}


MEASURED = """
import resource, sys
from collections import Counter
from pathlib import Path
from data_prep.readers.dispatch import read_documents
from data_prep.config.schema import InputOptions
from data_prep.readers.sources import Slice, Source
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
path = Path(sys.argv[1])
size = path.stat().st_size
options = InputOptions(path=path, documents="file", max_document_chars=1_000_000)
before = peak_mb()
piece = Slice(Source(path, path.name, size), 0, size)
chars = sum(len(document.text) for document in read_documents(piece, options, Counter()))
print(chars, peak_mb() - before)
"""


@pytest.mark.parametrize("line", [b"some words and no end ", b"some words.\n\n"])
def test_long_document_takes_bounded_memory(line: bytes, tmp_path: Path) -> None:
    """Memory does not grow with the length of a document."""
    path = tmp_path / "long.txt"
    with path.open("wb") as file:
        for _ in range(60):
            file.write(line * ((1 << 20) // len(line)))
    command = [sys.executable, "-c", MEASURED, str(path)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    chars, grown_mb = map(float, printed.split())
    assert chars > 0.8 * path.stat().st_size
    assert grown_mb < 30, "a part has 1 MB, the file 60"
