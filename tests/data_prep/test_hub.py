"""Names on the hub: which paths are names, what is fetched, and why it cannot be."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from data_prep.errors import UserError
from data_prep.hub import DESCRIPTION, WEIGHTS, fetch, hub_name
from tests.hub_server import REVISION, Hub, serve_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Return a hub with one repository, org/model."""
    folder = tmp_path / "served"
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "vocab.txt", "model.safetensors", "pytorch_model.bin", "net.py"):
        (folder / name).write_text(name)
    (folder / "onnx" / "config.json").write_text("onnx")
    with serve_hub(monkeypatch, tmp_path / "cache") as served:
        served.repositories["org/model"] = folder
        yield served


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the hub off, as HF_HUB_OFFLINE does."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("runs/teacher", None),
        ("export/student", None),
        ("here/typo", None),
        ("here", None),
        ("/org/model", None),
        ("../model", None),
        ("a/b/c", None),
        ("org/mo del", None),
    ],
)
def test_which_paths_are_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, name: str | None
) -> None:
    """A path is a name of the hub only where it can be no path of this machine."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub_name(Path(path)) == name


def test_only_wanted_files_are_fetched(hub: Hub) -> None:
    """Neither code nor pickles nor copies in other folders are downloaded, and weights last."""
    folder = fetch("org/model", DESCRIPTION)
    assert sorted(hub.sent) == ["config.json", "vocab.txt"] and folder.name == REVISION
    assert fetch("org/model", WEIGHTS) == folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "model.safetensors", "vocab.txt",
    ]  # fmt: skip


def test_cached_files_need_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the cache is read without the hub."""
    folder = fetch("org/model", DESCRIPTION)
    go_offline(monkeypatch)
    sent = list(hub.sent)
    assert fetch("org/model", DESCRIPTION) == folder and hub.sent == sent


def test_reasons_are_told_apart(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A refusal says whether there is none, it is gated, or the hub is off or unreachable."""
    with pytest.raises(UserError, match="There is no folder org/other, and no repository of this"):
        fetch("org/other", DESCRIPTION)
    hub.gated.add("org/model")
    with pytest.raises(UserError, match="org/model is gated on the hub: accept its conditions"):
        fetch("org/model", DESCRIPTION)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="is no name of the hub either"):
        fetch("org/--model..", DESCRIPTION)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cache .*/empty, and the hub cannot be reached \(Conn"):
        fetch("org/model", DESCRIPTION)
    go_offline(monkeypatch)
    with pytest.raises(UserError, match=r"and the hub is switched off \(HF_HUB_OFFLINE\)"):
        fetch("org/model", DESCRIPTION)
