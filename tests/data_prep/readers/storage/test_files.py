"""Every file of the input is read once, or is passed over by a rule that the log names."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks, list_sources
from data_prep.readers.storage import folders
from data_prep.readers.storage.files import find_files
from data_prep.readers.storage.names import PassedOver, is_about_data, portable_name, printable

ROOT = Path(__file__).parents[4]


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"words of {name}")
    return folder


def names_of(root: Path, pattern: str = "*", passed: PassedOver | None = None) -> list[str]:
    return [file.name for file in find_files(root, pattern, passed)]


def test_linked_folders_are_read(tmp_path: Path) -> None:
    """Folders behind symbolic links are read like others, also through a glob."""
    fill(tmp_path / "away", "b.txt", "deep/c.txt")
    root = fill(tmp_path / "in", "a.txt")
    (root / "link").symlink_to("../away")
    expected = ["in/a.txt", "in/link/b.txt", "in/link/deep/c.txt"]
    assert names_of(root) == expected
    assert names_of(root / "**" / "*.txt") == [name.removeprefix("in/") for name in expected]
    (tmp_path / "whole").symlink_to(root)
    assert [name.partition("/")[2] for name in names_of(tmp_path / "whole")] == [
        name.removeprefix("in/") for name in expected
    ]


def test_link_loops_repeat_nothing(tmp_path: Path) -> None:
    """Loops of links end, each file is read once, and the log names the links."""
    root = fill(tmp_path / "in", "a/1.txt", "b/2.txt")
    (root / "a" / "up").symlink_to("..")
    (root / "b" / "self").symlink_to(".")
    (root / "above").symlink_to("../..")
    (root / "0th").symlink_to("a")
    for form in (root, root / "**" / "*.txt", root / "*"):
        passed = PassedOver()
        found = [name.removeprefix("in/") for name in names_of(form, passed=passed)]
        assert found == ["a/1.txt", "b/2.txt"], form
    passed = PassedOver()
    names_of(root, passed=passed)
    assert passed.names == {
        "linked to a folder above it": ["above/"],
        "linked to a folder read": ["0th/", "a/up/", "b/self/"],
    }


def test_two_links_to_one_folder(tmp_path: Path) -> None:
    """Of two links to one folder outside the input, the first is read."""
    fill(tmp_path / "away", "x.txt")
    root = fill(tmp_path / "in", "a.txt")
    for name in ("two", "one"):
        (root / name).symlink_to(tmp_path / "away")
    assert names_of(root) == ["in/a.txt", "in/one/x.txt"]


def test_linked_files_are_read_once(tmp_path: Path) -> None:
    """A file that is there and linked is read under its own name; hard links are files."""
    root = fill(tmp_path / "cache", "snapshots/x", "zz/part-0.txt")
    (root / "part-0.txt").symlink_to("zz/part-0.txt")
    (root / "other.txt").symlink_to("snapshots/x")
    os.link(root / "zz" / "part-0.txt", root / "hard.txt")
    passed = PassedOver()
    expected = ["cache/hard.txt", "cache/snapshots/x", "cache/zz/part-0.txt"]
    assert names_of(root, passed=passed) == expected
    assert passed.names == {"linked to a file read": ["cache/other.txt", "cache/part-0.txt"]}


def test_hub_cache_is_read_by_snapshot(tmp_path: Path) -> None:
    """Of the hub's cache one revision is read, whose files are links, and never the whole."""
    root = fill(tmp_path / "datasets--a--b", "blobs/0a1b", "refs/main", "snapshots/1/README.md")
    (root / "snapshots" / "1" / "x.txt").symlink_to("../../blobs/0a1b")
    with pytest.raises(UserError, match=r"is a cache of the Hugging Face hub.* in .*/snapshots as"):
        find_files(root, "*")
    assert names_of(root / "snapshots" / "1") == ["1/x.txt"]


def test_file_given_twice_by_link(tmp_path: Path) -> None:
    """A file that two paths of the recipe lead to is refused."""
    fill(tmp_path, "a.txt")
    (tmp_path / "b.txt").symlink_to("a.txt")
    with pytest.raises(UserError, match=r"b\.txt is listed twice in input\.paths \(as .*a\.txt\)"):
        list_sources({"text": InputOptions(paths=(tmp_path / "a.txt", tmp_path / "b.txt"))})


@pytest.mark.parametrize("glob", ["", "**/*.txt", "*/*.txt"])
def test_unreadable_folder_is_an_error(
    tmp_path: Path, glob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be listed is an error, never an empty one."""
    root = fill(tmp_path / "in", "a.txt", "locked/b.txt")
    scandir = os.scandir

    def refuse(path: os.PathLike[str]) -> "os.ScandirIterator[str]":  # type: ignore[name-defined]
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", refuse)
    with pytest.raises(UserError, match=r"in/locked cannot be read \(Permission denied\)"):
        find_files(root / glob, "*")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_locked_folder_is_an_error(tmp_path: Path, mode: int) -> None:
    """A folder without permissions is an error for a real user, with and without its names."""
    root = fill(tmp_path / "in", "a.txt", "locked/b.txt")
    (root / "locked").chmod(mode)
    for folder in (*tmp_path.parents, tmp_path):
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    script = (
        "import os, sys; from pathlib import Path\n"
        "from data_prep.readers.storage.files import find_files\n"
        "os.setuid(65534)\n"
        "try: print(find_files(Path(sys.argv[1]), '*'))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, str(root)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    (root / "locked").chmod(0o755)
    assert "UserError" in printed and "locked" in printed and "Permission denied" in printed


def test_broken_links_are_refused(tmp_path: Path) -> None:
    """A link whose target is missing, or that leads to itself, is refused by name."""
    root = fill(tmp_path / "in", "a.txt")
    (root / "gone.txt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"gone\.txt is a broken link"):
        find_files(root, "*")
    (root / "gone.txt").unlink()
    (root / "self").symlink_to("self")
    with pytest.raises(UserError, match=r"in/self cannot be read \(Too many levels of symb"):
        find_files(root, "*")


def test_names_without_text_are_passed_over(tmp_path: Path) -> None:
    """Hidden names, those that begin with `_`, checksums and empty files are passed over."""
    root = fill(
        tmp_path / "in",
        *("part-0", ".part-0.crc", "part-0.crc", "_SUCCESS", "_metadata", "_temporary/0/part-1"),
        *(".git/x", "_lang=en/part-2", "part-0.md5"),
    )
    (root / "part-9").touch()
    passed = PassedOver()
    assert names_of(root, passed=passed) == ["in/_lang=en/part-2", "in/part-0"]
    assert {reason: sorted(names) for reason, names in passed.names.items()} == {
        "hidden": [".git/", ".part-0.crc"],
        "internal": ["_SUCCESS", "_metadata", "_temporary/", "part-0.crc", "part-0.md5"],
        "empty": ["in/part-9"],
    }
    assert str(passed).startswith("1 empty (in/part-9); 2 hidden (.git/, .part-0.crc); 5 internal")
    assert names_of(root, "_*") == ["in/_SUCCESS", "in/_metadata"]
    assert names_of(root / "_metadata") == ["_metadata"]
    assert names_of(root / "*") == names_of(root / "**") == ["_lang=en/part-2", "part-0"]


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        (["README.md", "LICENSE", "data/a.parquet"], "*", ["data/a.parquet"]),
        (["README.md", "dataset_infos.json", "a.json"], "*", ["a.json"]),
        (["README.md"], "*", ["README.md"]),
        (["README.md", "a.md"], "*.md", ["README.md", "a.md"]),
        (["README.md", "a.txt"], "README*", ["README.md"]),
        (["LICENSE.txt", "a.txt"], "*.txt", ["a.txt"]),
        (["one/README.md", "two/README.md"], "*", ["one/README.md", "two/README.md"]),
        (["one/README.md", "one/a.txt", "two/README.md"], "*", ["one/a.txt", "two/README.md"]),
        (["Readme.zh-CN.md", "LICENSE-MIT", "readme.jsonl"], "*", ["readme.jsonl"]),
        (["notices.txt", "licenses.txt", "readme_first.txt"], "*", None),
    ],
)
def test_files_about_data_are_passed_over(
    tmp_path: Path, names: list[str], pattern: str, expected: list[str] | None
) -> None:
    """A card or license is passed over beside data, unless the pattern names it."""
    root = fill(tmp_path / "in", *names)
    found = [name.removeprefix("in/") for name in names_of(root, pattern)]
    assert found == sorted(expected or names)


def test_file_given_by_name_is_read(tmp_path: Path) -> None:
    """A file that the recipe names is read whatever it is called."""
    fill(tmp_path, "README.md", "_notes.txt", ".x")
    for name in ("README.md", "_notes.txt", ".x"):
        assert names_of(tmp_path / name, "*.never") == [name]
    assert is_about_data("README.md", "*") and not is_about_data("README.md", "*.md")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """Names of other encodings are read, and written so that different names stay different."""
    root = tmp_path / "in"
    root.mkdir()
    for name in (b"caf\xe9.txt", b"caf\\xe9.txt", "café.txt".encode(), b"a\\b.txt"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_text("words")
    names = [source.name for source in list_sources({"text": InputOptions(path=root)})]
    assert sorted(names) == sorted(
        ["in/a\\b.txt", "in/caf\\x5cxe9.txt", "in/caf\\xe9.txt", "in/café.txt"]
    )
    assert all(name.encode() for name in names)
    with pytest.raises(UserError, match=r"caf\\xe9\.txt"):
        find_files(Path(os.fsdecode(b"caf\xe9.txt")), "*")
    assert printable("two\nlines\x1b") == "two\\nlines\\x1b" and portable_name("é\\n") == "é\\n"


def test_pipe_is_no_file(tmp_path: Path) -> None:
    """A pipe is never opened: passed over in a folder, refused by name."""
    root = fill(tmp_path / "in", "a.txt")
    os.mkfifo(root / "pipe")
    passed = PassedOver()
    assert names_of(root, passed=passed) == ["in/a.txt"]
    assert passed.names == {"neither file nor folder": ["in/pipe"]}
    with pytest.raises(UserError, match="is no file but a pipe or device"):
        find_files(root / "pipe", "*")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", r"nowhere does not exist: correct input\.path"),
        (lambda root: root / "*.xml", r"\*\.xml matches no file"),
        (lambda root: root / "b" / "*.xml", r"\*\.xml matches no file"),
        (lambda root: root / ("n" * 300), r"cannot be read \(File name too long\)"),
    ],
)
def test_wrong_paths_are_named(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    """A path that leads nowhere is refused in one sentence."""
    with pytest.raises(UserError, match=message):
        find_files(make(fill(tmp_path, "a.txt")), "*")


def test_brackets_and_dots_are_names(tmp_path: Path) -> None:
    """A folder with brackets in its name is no glob, and `..` and hidden parents are no matter."""
    fill(tmp_path, "[D] data/a.txt", ".cache/in/a.txt", "other/x.txt")
    assert names_of(tmp_path / "[D] data") == ["[D] data/a.txt"]
    assert names_of(tmp_path / "other" / ".." / "[D] data") == ["[D] data/a.txt"]
    assert names_of(tmp_path / "other" / ".." / ".cache" / "in") == ["in/a.txt"]
    assert names_of(tmp_path / "other" / ".." / "o*" / "*.txt") == ["other/x.txt"]
    assert names_of(tmp_path / "[[]D] data" / "*.txt") == ["[D] data/a.txt"]


def test_changed_file_is_refused(tmp_path: Path) -> None:
    """A file that shrinks or grows between listing and reading is refused."""
    fill(tmp_path, "a.txt")
    options = InputOptions(path=tmp_path)
    ((piece,),) = cut_into_tasks(list_sources({"text": options}))
    (tmp_path / "a.txt").write_text("fewer")
    with pytest.raises(UserError, match=r"a\.txt has changed since it was listed, from 14 to 5 b"):
        list(read_documents(piece, options, Counter()))


def test_pattern_without_match_lists_names(tmp_path: Path) -> None:
    """A pattern that matches nothing is refused with the names that there are."""
    fill(tmp_path, "a.jsonl.gz", "b.jsonl.gz", "c.txt", "_SUCCESS")
    with pytest.raises(
        UserError,
        match=r"matches input\.pattern='\*\.csv': .* \.jsonl\.gz \(2\), \.txt \(1\), such as a\.j",
    ):
        find_files(tmp_path, "*.csv")


def test_only_empty_files_are_named(tmp_path: Path) -> None:
    """Input that holds nothing to read is refused with what was passed over."""
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"no text in .*passed over: 1 empty \(.*a\.txt\)"):
        list_sources({"text": InputOptions(path=tmp_path)})
