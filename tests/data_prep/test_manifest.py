"""Manifests: any damage to a directory is found and named."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data_prep import manifest as manifest_module
from data_prep.errors import UserError
from data_prep.manifest import (
    MANIFEST,
    file_sha256,
    find_damage,
    fingerprint,
    first_difference,
    read_manifest,
    write_json,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a complete directory of two files."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.bin").write_bytes(b"alpha")
    (tmp_path / "inner" / "b.bin").write_bytes(b"beta")
    write_manifest(tmp_path, {"step": 3}, ["inner/b.bin", "a.bin"])
    return tmp_path


def damage_of(folder: Path, hashes: bool = True) -> str | None:
    return find_damage(folder, read_manifest(folder, "corpus", "make it again"), hashes)


def test_manifest_lists_facts_and_files(folder: Path) -> None:
    """A manifest has the facts and every file."""
    manifest = read_manifest(folder, "corpus", "make it again")
    assert manifest["step"] == 3
    assert manifest["files"] == {
        "a.bin": {"bytes": 5, "sha256": hashlib.sha256(b"alpha").hexdigest()},
        "inner/b.bin": {"bytes": 4, "sha256": hashlib.sha256(b"beta").hexdigest()},
    }
    assert damage_of(folder) is None


def test_hash_of_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file longer than one read has the right hash."""
    monkeypatch.setattr(manifest_module, "_READ_BYTES", 7)
    (tmp_path / "long.bin").write_bytes(bytes(range(100)))
    assert file_sha256(tmp_path / "long.bin") == hashlib.sha256(bytes(range(100))).hexdigest()


def test_missing_file_is_named(folder: Path) -> None:
    """A missing file is named."""
    (folder / "inner" / "b.bin").unlink()
    assert damage_of(folder, hashes=False) == "inner/b.bin is missing"


def test_changed_size_is_found(folder: Path) -> None:
    """A changed size is found without reading contents."""
    (folder / "a.bin").write_bytes(b"alph")
    assert damage_of(folder, hashes=False) == "a.bin has 4 bytes instead of 5"


def test_changed_byte_is_found(folder: Path) -> None:
    """One changed byte is found when contents are read."""
    (folder / "a.bin").write_bytes(b"alphA")
    assert damage_of(folder, hashes=False) is None
    assert damage_of(folder) == "the contents of a.bin have changed (sha256 differs)"


@pytest.mark.parametrize("name", ["../outside.bin", "inner/../../outside.bin", "/etc/hostname"])
def test_outside_name_is_damage(folder: Path, name: str) -> None:
    """A name outside the directory is damage."""
    manifest = {"files": {name: {"bytes": 0, "sha256": ""}}}
    assert find_damage(folder, manifest, hashes=False) == (
        f"the manifest names {name!r}, which is outside the directory"
    )


def test_missing_manifest_names_remedy(tmp_path: Path) -> None:
    """A directory without a manifest is refused with the remedy."""
    with pytest.raises(UserError, match=rf"The corpus {tmp_path} has no manifest.json: make it."):
        read_manifest(tmp_path, "corpus", "make it")


@pytest.mark.parametrize("content", ["", '{"files": {', "[]", "{}", '{"files": 3}', "null"])
def test_invalid_manifest_is_refused(folder: Path, content: str) -> None:
    """A truncated manifest, and other JSON, are refused."""
    (folder / MANIFEST).write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json is not a manifest .*: make it again\."):
        damage_of(folder)


def test_failed_write_keeps_old_json(tmp_path: Path) -> None:
    """JSON that cannot be written leaves the old file unchanged."""
    path = tmp_path / "status.json"
    write_json(path, {"state": "running", "what": "日本"})
    unwritable: Any = {"state": "done", "then": object()}
    with pytest.raises(TypeError):
        write_json(path, unwritable)
    assert json.loads(path.read_text(encoding="utf-8")) == {"state": "running", "what": "日本"}


def test_fingerprint_ignores_key_order() -> None:
    """A fingerprint depends on values, not on the order of keys."""
    assert fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    different = [{"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, [1, 2], [2, 1]]
    assert len({fingerprint(facts) for facts in different}) == len(different)
    assert len(fingerprint({})) == 16


def test_failed_write_leaves_no_temporary(
    tmp_path: Path,
) -> None:
    """A failed write leaves the old file and no temporary one."""
    path = tmp_path / "status.json"
    write_json(path, {"step": 1})
    with pytest.raises(TypeError):
        write_json(path, {"step": object()})
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]
    assert json.loads(path.read_text(encoding="utf-8")) == {"step": 1}


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({"a": 1, "b": {"c": [2]}}, {"b": {"c": [2]}, "a": 1}, None),
        ({"a": 1, "b": {"c": [2]}}, {"a": 1, "b": {"c": [3]}}, ("b.c", [2], [3])),
        ({"a": 1}, {}, ("a", 1, None)),
        ({"a": {"x": 1}}, {"a": 5}, ("a", {"x": 1}, 5)),
        ({}, {"z": 4}, ("z", None, 4)),
    ],
)
def test_first_difference_names_key(wanted: Any, found: Any, expected: Any) -> None:
    """The first difference of two trees is returned with its dotted key and both values."""
    assert first_difference(wanted, found) == expected


def test_first_difference_can_ignore_extra_keys() -> None:
    """Keys that only the found tree has are ignored on request, at any depth."""
    assert first_difference({"a": {}}, {"a": {"b": 1}, "c": 2}, ignore_extra=True) is None
