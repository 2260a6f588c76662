import itertools
from pathlib import Path

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers import listing
from data_prep.readers.listing import cut_into_tasks, list_sources
from data_prep.readers.sources import Slice, Source


def test_a_folder_is_read_recursively_in_sorted_order_without_hidden_or_empty_files(
    tmp_path: Path,
) -> None:
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


def test_a_pattern_chooses_file_names(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("text")
    (tmp_path / "SOURCE.md").write_text("about")
    found = list_sources({"text": InputOptions(path=tmp_path, pattern="*.txt")})
    assert [source.path.name for source in found] == ["keep.txt"]


def test_the_shipped_sample_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list_sources({"text": InputOptions(path=Path("sample"))})
    assert len(found) >= 80
    assert 1_500_000 < sum(source.size for source in found) < 2_500_000
    assert {source.path.suffix for source in found} == {".txt"}


def test_a_missing_input_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        list_sources({"text": InputOptions(path=tmp_path / "nowhere")})


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no text in"):
        list_sources({"text": InputOptions(path=tmp_path)})


def test_every_byte_is_in_exactly_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_huge_input_gets_larger_tasks_and_not_more_of_them() -> None:
    files = [Source(Path(f"{i:05}"), f"{i:05}", 1 << 30) for i in range(1000)]
    assert listing.MAX_TASKS / 2 <= len(cut_into_tasks(files)) <= listing.MAX_TASKS * 2


def test_a_compressed_file_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SLICE_BYTES", 10)
    source = Source(Path("a.jsonl.gz"), "a.jsonl.gz", 95)
    assert cut_into_tasks([source]) == [[Slice(source, 0, 95)]]
    assert Slice(source, 0, 95).holds(1_000_000)
