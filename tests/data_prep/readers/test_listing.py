"""Listing: the sources of an input, and their division into tasks."""

import itertools
from pathlib import Path

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers import listing
from data_prep.readers.listing import cut_into_tasks, list_sources
from data_prep.readers.sources import Slice, Source


def test_folder_lists_visible_files_sorted(
    tmp_path: Path,
) -> None:
    """A folder is read recursively, sorted, without hidden or empty files."""
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".hidden.txt", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "empty.txt").touch()
    found = list_sources({"text": InputOptions(path=tmp_path)})
    assert [source.path.relative_to(tmp_path).as_posix() for source in found] == [
        "a.txt",
        "b/1.txt",
        "b/2.txt",
    ]
    assert all(source.name.startswith(f"{tmp_path.name}/") for source in found)


def test_pattern_selects_file_names(tmp_path: Path) -> None:
    """A pattern selects file names."""
    (tmp_path / "keep.txt").write_text("text")
    (tmp_path / "SOURCE.md").write_text("about")
    found = list_sources({"text": InputOptions(path=tmp_path, pattern="*.txt")})
    assert [source.path.name for source in found] == ["keep.txt"]


def test_sample_is_found_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped sample corpus is found from any working directory."""
    monkeypatch.chdir(tmp_path)
    found = list_sources({"text": InputOptions(path=Path("sample"))})
    assert len(found) >= 80
    assert 1_500_000 < sum(source.size for source in found) < 2_500_000
    assert {source.path.suffix for source in found} == {".txt"}


def test_missing_input_is_refused(tmp_path: Path) -> None:
    """A missing input is refused by name."""
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        list_sources({"text": InputOptions(path=tmp_path / "nowhere")})


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    """A folder without text is refused."""
    with pytest.raises(UserError, match="There is no text in"):
        list_sources({"text": InputOptions(path=tmp_path)})


def test_slices_partition_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is in exactly one slice."""
    monkeypatch.setattr(listing, "SLICE_BYTES", 100)
    files = [Source(Path(f"{i}"), f"{i}", size) for i, size in enumerate((30, 50, 40, 250, 10))]
    tasks = cut_into_tasks(files)
    pieces = [piece for task in tasks for piece in task]
    for source in files:
        cuts = [(piece.start, piece.stop) for piece in pieces if piece.source == source]
        assert cuts[0][0] == 0 and cuts[-1][1] == source.size
        assert all(before[1] == after[0] for before, after in itertools.pairwise(cuts))
    assert [piece.source for piece in pieces] == sorted(
        (piece.source for piece in pieces), key=lambda source: source.name
    )
    assert all(sum(piece.stop - piece.start for piece in task) <= 100 for task in tasks)


def test_huge_input_gets_larger_tasks() -> None:
    """A huge input gets larger tasks, not more of them."""
    files = [Source(Path(f"{i:05}"), f"{i:05}", 1 << 30) for i in range(1000)]
    assert listing.MAX_TASKS / 2 <= len(cut_into_tasks(files)) <= listing.MAX_TASKS * 2


def test_compressed_file_is_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed file is never cut."""
    monkeypatch.setattr(listing, "SLICE_BYTES", 10)
    source = Source(Path("a.jsonl.gz"), "a.jsonl.gz", 95)
    assert cut_into_tasks([source]) == [[Slice(source, 0, 95)]]
    assert Slice(source, 0, 95).holds(1_000_000)
