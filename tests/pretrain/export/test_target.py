"""Where an export may appear: never in, around or instead of something else."""

import json
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.export.huggingface import PUBLISHED, publish
from pretrain.export.target import check_target, export_name
from pretrain.model import BertShape
from tests.run_folders import make_run


@pytest.fixture
def run(tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape) -> Path:
    make_run(tmp_path / "run", tiny_tokenizer, "student", tiny_shape)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ("a file", "a file is a file: choose the path of a folder"),
        ("a file/export", "a file is a file, so .*export cannot be made"),
        ("run", "lies inside the run folder"),
        ("run/export", "lies inside the run folder"),
        ("link/export", "lies inside the run folder"),
        (".", "is not an export of ours"),
        ("broken", "is not an export of ours"),
    ],
)
def test_unsuitable_paths_refused_first(
    run: Path, tmp_path: Path, export: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path where no export can appear is refused before the weights are read."""
    (tmp_path / "a file").write_text("text")
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "stillhouse.json").write_text("{")
    monkeypatch.setattr("pretrain.export.huggingface.load_located", None)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        publish(run, tmp_path / export)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_added_files_are_not_lost(run: Path, tmp_path: Path) -> None:
    """An export to which somebody has added a file is not replaced."""
    export = tmp_path / "export"
    publish(run, export)
    (export / "notes.txt").write_text("measured on 3 tasks")
    with pytest.raises(UserError, match=r"has notes\.txt, which publishing did not write"):
        publish(run, export, license_name="mit")
    assert (export / "notes.txt").read_text() == "measured on 3 tasks"


def test_name_with_spaces_is_kept(run: Path, tmp_path: Path) -> None:
    """A name with spaces and other letters is the model's name."""
    export = tmp_path / "mein kleines Modell ü"
    publish(run, export)
    assert f"# {export.name}\n" in (export / "README.md").read_text(encoding="utf-8")
    assert export_name(Path("exports/./student/")) == "student"
    assert export_name(Path(".")) == Path.cwd().name


def test_link_keeps_its_place(run: Path, tmp_path: Path) -> None:
    """A link is followed, stays a link, and gives the model its name."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "student"
    link.symlink_to(tmp_path / "disk" / "v1")
    publish(run, link)
    publish(run, link, license_name="mit")
    assert link.is_symlink() and (tmp_path / "disk" / "v1" / "config.json").is_file()
    assert "# student\n" in (link / "README.md").read_text(encoding="utf-8")


def test_only_listed_files_are_published(run: Path, tmp_path: Path) -> None:
    """Nothing that lies beside a tokenizer is published, whatever it is called."""
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    (run / "tokenizer" / "notes.txt").symlink_to(secret)
    (run / "tokenizer" / "added.json").write_text("{}")
    (run / "tokenizer" / "code.py").write_text("raise SystemExit")
    publish(run, tmp_path / "export")
    names = {path.name for path in (tmp_path / "export").iterdir()}
    assert names == set(PUBLISHED)
    facts = json.loads((tmp_path / "export" / "stillhouse.json").read_text(encoding="utf-8"))
    assert set(facts["files"]) == names - {"stillhouse.json"}


def test_vocabulary_beside_tokenizer_is_not_its_own(
    run: Path, tmp_path: Path, tiny_shape: BertShape
) -> None:
    """A vocab.txt that the tokenizer's manifest does not list is not published."""
    manifest = run / "tokenizer" / "manifest.json"
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    del facts["files"]["vocab.txt"]
    manifest.write_text(json.dumps(facts), encoding="utf-8")
    load_tokenizer(run / "tokenizer")
    publish(run, tmp_path / "export")
    assert not (tmp_path / "export" / "vocab.txt").exists()


def test_new_path_is_fine(tmp_path: Path) -> None:
    """A path that does not exist, and below none that do, is taken."""
    check_target(tmp_path / "run", tmp_path / "exports" / "deep" / "student")
    check_target(tmp_path / "run", tmp_path / "run-export")
