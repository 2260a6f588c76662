"""Listing: the sources of an input, and their division into tasks."""

import itertools
from pathlib import Path

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers import listing
from data_prep.readers.listing import cut_into_tasks, list_sources, share_of_array
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
    """Every byte is in exactly one slice, and tasks are of about equal bytes."""
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
    assert all(85 <= sum(piece.size for piece in task) <= 106 for task in tasks)


@pytest.mark.parametrize(
    "sizes",
    [
        [34_000_000] * 4,
        [34_000_000] * 40,
        [1_000_000] * 500,
        [1 << 30, 5, 400_000_000, 77],
        [n * 997_331 for n in range(1, 120)],
    ],
)
def test_tasks_have_equal_bytes(sizes: list[int]) -> None:
    """Tasks have about equal bytes, also where files are a little larger than a task."""
    files = [Source(Path(f"{i}"), f"{i}", size) for i, size in enumerate(sizes)]
    found = [sum(piece.size for piece in task) for task in cut_into_tasks(files)]
    assert sum(found) == sum(sizes)
    assert max(found) <= 1.1 * listing.SLICE_BYTES
    assert min(found) >= 0.75 * listing.SLICE_BYTES


def test_small_files_are_not_cut() -> None:
    """Files of a few megabytes are grouped and not cut."""
    files = [Source(Path(f"{i}"), f"{i}", 1_000_000 + 7 * i) for i in range(300)]
    tasks = cut_into_tasks(files)
    assert all(piece.size == piece.source.size for task in tasks for piece in task)


def test_change_at_end_keeps_first_tasks() -> None:
    """A file that is added or corrected at the end leaves the tasks before it as they are."""
    files = [Source(Path(f"{i}"), f"{i}", 20_000_000 + i) for i in range(40)]
    before = cut_into_tasks(files)
    after = cut_into_tasks([*files, Source(Path("z"), "z", 5_000_000)])
    assert before[:-4] == after[: len(before) - 4]


def test_large_stream_leaves_others_grouped() -> None:
    """Small files after a compressed file larger than many tasks are grouped as elsewhere."""
    sizes = [1 << 30] + [1_000_000] * 300
    files = [Source(Path(f"{i}.gz"), f"{i}.gz", size) for i, size in enumerate(sizes)]
    tasks = cut_into_tasks(files)
    assert len(tasks[0]) == 1 and len(tasks) == 10
    assert all(30 <= len(task) <= 36 for task in tasks[1:])


def test_array_shares_have_equal_bytes() -> None:
    """Array tasks run contiguous tasks of about equal bytes, each task once."""
    assert share_of_array([10] * 8, 4) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert share_of_array([90, 10, 10, 10], 2) == [0, 1, 1, 1]
    assert share_of_array([10] * 3, 50) == [8, 25, 41]
    assert share_of_array([7] * 5, 1) == [0] * 5
    shares = share_of_array([n % 7 + 1 for n in range(500)], 16)
    assert shares == sorted(shares) and set(shares) == set(range(16))


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
