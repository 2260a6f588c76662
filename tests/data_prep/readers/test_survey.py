"""Before work starts the log tells what was found, and files that cannot be read are refused."""

import gzip
import io
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from data_prep.config.schema import CorpusRecipe, InputOptions
from data_prep.errors import UserError
from data_prep.pipeline.build import build_corpus
from data_prep.readers.listing import list_input
from data_prep.readers.survey import size_in_words, survey_input

RecipeFor = Callable[..., CorpusRecipe]


def survey(path: Path) -> dict[str, object]:
    corpora = {"text": InputOptions(path=path)}
    return survey_input(list_input(corpora), corpora)


def test_log_counts_files_by_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log has files and bytes by format, and what is passed over and why."""
    (tmp_path / "a.txt").write_text("words " * 1000)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "words"}\n'))
    (tmp_path / "wiki_00").write_text('<doc id="1" title="T">\nT\n\nwords\n</doc>\n')
    (tmp_path / "v1.0").write_text("words")
    for name in ("README.md", ".hidden", "empty.txt"):
        (tmp_path / name).write_text("" if name == "empty.txt" else "words")
    facts = survey(tmp_path)
    printed = capsys.readouterr().err
    assert re.search(r"input text: 4 files, 6\.\d\d kB: 1 text \(\.txt\), 6 kB; 1 ", printed)
    assert "1 jsonl (.jsonl.gz)" in printed and "1 wikiextractor, " in printed
    assert "passed over 1 about the data" in printed and "; 1 empty (" in printed
    assert facts["text"]["formats"]["text"] == {"files": 1, "bytes": 5}  # type: ignore[index]
    assert facts["text"]["passed_over"]["hidden"] == {  # type: ignore[index]
        "count": 1,
        "names": [".hidden"],
    }


@pytest.mark.parametrize("name", ["books.tar", "books.tar.gz", "books.tgz", "books.txt", "books"])
def test_archives_are_refused_before_work(name: str, tmp_path: Path, recipe_for: RecipeFor) -> None:
    """An archive is refused by what it is, before a tokenizer is trained."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("book.txt")
        member.size = 6000
        archive.addfile(member, io.BytesIO(b"words " * 1000))
    content = file.getvalue()
    compressed = name.endswith(("gz",))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("words\n\n" * 1000)
    (folder / name).write_bytes(gzip.compress(content) if compressed else content)
    recipe = recipe_for(folder)
    with pytest.raises(UserError, match=rf"{name} is a tar archive.*: unpack it"):
        build_corpus(recipe)
    assert not recipe.tokenizer.path.exists()


def test_unread_compression_is_named(tmp_path: Path) -> None:
    """A file that lz4 compressed is named so, also without its suffix."""
    (tmp_path / "a.txt").write_bytes(b"\x04\x22\x4d\x18" + bytes(20))
    with pytest.raises(UserError, match=r"a\.txt is compressed with lz4, by its first bytes"):
        survey(tmp_path)


def test_long_windows_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log has the memory that a file of `zstd --long=31` needs."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.txt.zst").write_bytes(stream.compress(b"words") + stream.flush())
    (tmp_path / "b.txt.zst").write_bytes(zstandard.compress(b"words"))
    survey(tmp_path)
    assert "a.txt.zst was compressed with a window of 2.15 GB" in capsys.readouterr().err


def test_manifest_keeps_input_files(tmp_path: Path, recipe_for: RecipeFor, prose: object) -> None:
    """The manifest keeps what was found; a file that is passed over later changes no corpus."""
    folder = tmp_path / "in"
    folder.mkdir()
    text = prose("survey", 40)  # type: ignore[operator]
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text(text)
    (folder / "_SUCCESS").touch()
    manifest = build_corpus(recipe_for(folder))
    assert manifest["sources"][0]["path"] == "in/caf\\xe9.txt"
    assert manifest["input_files"]["text"]["files"] == 1
    assert manifest["input_files"]["text"]["passed_over"]["internal"]["names"] == ["_SUCCESS"]
    (folder / "README.md").write_text("About.\n")
    assert build_corpus(recipe_for(folder)) == manifest


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (61_234_567, "61.2 MB"), (5e13, "50 TB")]
)
def test_sizes_have_three_digits(size: float, words: str) -> None:
    """Sizes are written with three digits and a unit."""
    assert size_in_words(size) == words
