"""Input from the file systems of fsspec, and addresses in errors and recipes."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data_prep.config.schema import CorpusRecipe, InputOptions
from data_prep.errors import UserError
from data_prep.readers.listing import list_sources
from tests.data_prep.readers.storage.remote_documents import DOCUMENTS, FORMATS, LINES, read

RecipeFor = Callable[..., CorpusRecipe]


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no https://a:b@host/x?k=v: why", "no https://host/x why"),
        ("'https://t@host/x?k=v' and s3://key:p/w@b", "'https://host/x' and s3://key:p/w@b"),
        ("hf://datasets/a/b@main/x is what? Text", "hf://datasets/a/b@main/x is what? Text"),
    ],
)
def test_errors_show_no_secret(text: str, shown: str) -> None:
    """Every error for users shows addresses without passwords and tokens."""
    assert str(UserError(text)) == shown


def test_memory_folders_and_globs(memory: Any) -> None:
    """Folders and globs of a file system of fsspec are listed as local ones."""
    for name in ("b/2.jsonl", "a/1.jsonl", "a/_SUCCESS", "a/.hidden", "README.md", "c.txt"):
        memory.pipe(f"/data/{name}", f'{{"text": "{name}"}}\n'.encode())
    memory.pipe("/data/empty.jsonl", b"")
    assert read(path="memory://data") == ["a/1.jsonl", "b/2.jsonl", "c.txt"]
    found = list_sources({"text": InputOptions(path="memory://data")})
    assert [source.name for source in found] == ["data/a/1.jsonl", "data/b/2.jsonl", "data/c.txt"]
    found = list_sources({"text": InputOptions(path="memory://data/*/*.jsonl")})
    assert [source.name for source in found] == ["a/1.jsonl", "b/2.jsonl"]
    memory.pipe("/[D]/*.txt", b"words")
    found = list_sources({"text": InputOptions(path="memory://[D]/*.txt")})
    assert [source.name for source in found] == ["*.txt"]
    found = list_sources({"text": InputOptions(path="memory://data", pattern="*.txt")})
    assert [str(source.path) for source in found] == ["memory://data/c.txt"]


@pytest.mark.parametrize("name", FORMATS)
def test_local_files_through_fsspec(tmp_path: Path, name: str) -> None:
    """The local file system of fsspec gives what paths give, and so do addresses of files."""
    (tmp_path / name).write_bytes(FORMATS[name]())
    for scheme in ("local", "file"):
        assert read(path=f"{scheme}://{tmp_path}/{name}") == DOCUMENTS
        assert read(path=f"{scheme}://{tmp_path}") == DOCUMENTS


@pytest.mark.parametrize("name", FORMATS)
def test_memory_files_match_local(memory: Any, name: str) -> None:
    """Files of every format are read from a file system of fsspec, in slices."""
    memory.pipe(f"/data/{name}", FORMATS[name]())
    assert read(path=f"memory://data/{name}") == DOCUMENTS


def test_failing_file_system_is_retried(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of a file system are retried where reading stopped."""
    memory.pipe("/a.jsonl", LINES)
    fails = iter([True, False, True, True, False, False, True] + [False] * 99)
    plain = type(memory).open

    def failing(self: Any, *args: Any, **keywords: Any) -> Any:
        if next(fails):
            raise ConnectionError("reset by peer")
        return plain(self, *args, **keywords)

    monkeypatch.setattr(type(memory), "open", failing)
    assert read(path="memory://a.jsonl") == DOCUMENTS


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nowhere", r"memory://nowhere does not exist"),
        ("memory://nowhere/*.txt", r"memory://nowhere/\*\.txt matches no file"),
        ("gopher2://a/b", r"has the unknown protocol gopher2://"),
    ],
)
def test_wrong_addresses_are_named(memory: Any, url: str, message: str) -> None:
    """An address that leads nowhere is refused in one sentence."""
    with pytest.raises(UserError, match=message):
        list_sources({"text": InputOptions(path=url)})


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_missing_package_is_named(scheme: str, package: str) -> None:
    """A file system whose package is missing is refused with the command that installs it."""
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(UserError, match=rf"needs {package}, .*: pip install {package}\.$"):
        list_sources({"text": InputOptions(path=f"{scheme}://bucket/*.jsonl")})


def test_addresses_pass_through_recipes(tmp_path: Path) -> None:
    """Addresses keep their slashes in a recipe, and those of local files become paths."""
    (tmp_path / "a b.txt").write_text("words")
    paths = ("s3://bucket//key", f"file://{tmp_path}/a%20b.txt", "plain/path")
    options = InputOptions(paths=paths)  # type: ignore[arg-type]
    assert options.paths == (paths[0], tmp_path / "a b.txt", Path(paths[2]))
    assert InputOptions.model_validate_json(options.model_dump_json()) == options
