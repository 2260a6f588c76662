"""Exports of every format pass the checks of a colleague's environment; faulty ones fail."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from data_prep.errors import UserError
from pretrain.export import fresh_process, huggingface, plain_load
from pretrain.export.fresh_process import check_in_fresh_process
from pretrain.export.huggingface import publish
from pretrain.model import BertShape
from pretrain.model.loading import WEIGHTS
from tests.exports import FORMATS, publish_format
from tests.run_folders import make_run

Change = Callable[[Path], None]
ExportOf = Callable[[str], Path]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the script changes for its own process."""
    for name in ("set_verbosity_error", "disable_progress_bar"):
        monkeypatch.setattr(transformers.logging, name, lambda: None)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which each format is published once."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture
def export_of(published: Path, tiny_tokenizer: Path, tiny_shape: BertShape) -> ExportOf:
    """Return a function that gives the export of a format."""

    def find(name: str) -> Path:
        if not (published / name).exists():
            publish_format(published, name, tiny_tokenizer, tiny_shape)
        return published / name

    return find


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("alone")
def test_every_class_takes_export(export_of: ExportOf, name: str) -> None:
    """Each Auto class of the format loads the export and takes its tokenizer's own output."""
    plain_load.main(export_of(name), name)


def edit(name: str, **entries: Any) -> Change:
    """Return a change of some entries of a JSON file."""

    def change(export: Path) -> None:
        content = json.loads((export / name).read_text(encoding="utf-8"))
        (export / name).write_text(json.dumps({**content, **entries}), encoding="utf-8")

    return change


def truncate(export: Path) -> None:
    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    tokenizer.enable_truncation(16)
    tokenizer.save(str(export / "tokenizer.json"))


def pad(export: Path) -> None:
    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    tokenizer.enable_padding(length=100)
    tokenizer.save(str(export / "tokenizer.json"))


def drop(part: str) -> Change:
    """Return a change that removes weights from the file."""

    def change(export: Path) -> None:
        weights = {n: t for n, t in load_file(export / WEIGHTS).items() if part not in n}
        save_file(weights, export / WEIGHTS, {"format": "pt"})

    return change


def break_example(export: Path) -> None:
    card = (export / "README.md").read_text(encoding="utf-8")
    (export / "README.md").write_text(card.replace("[MASK]", "mask"), encoding="utf-8")


def remove_examples(export: Path) -> None:
    (export / "README.md").write_text("# a model\n", encoding="utf-8")


FAULTS: dict[str, tuple[str, Change, str]] = {
    "shorter": ("bert", edit("tokenizer_config.json", model_max_length=32), "model_max_length is"),
    "longer": ("bert", edit("tokenizer_config.json", model_max_length=512), "it has 64 positions"),
    "truncation": ("bert-byte-level", truncate, "tokenizer.json has truncation switched on"),
    "padding": ("bert-byte-level", pad, "tokenizer.json has padding switched on"),
    "token types": (
        "distilbert",
        edit("tokenizer_config.json", model_input_names=["input_ids", "token_type_ids"]),
        "AutoModel: its tokenizer gives token_type_ids, which it does not take",
    ),
    "half a pooler": ("bert", drop("pooler.dense.bias"), "AutoModel: its weights lack"),
    "no encoder layer": ("bert", drop("layer.1."), "AutoModel: its weights lack"),
    "no MLM head": ("bert", drop("cls.predictions"), "AutoModelForMaskedLM: its weights lack"),
    "other width": ("bert", edit("config.json", intermediate_size=32), "AutoModel: "),
    "other type": ("bert", edit("config.json", model_type="no-such"), "AutoConfig: "),
    "example": ("bert", break_example, "the example of its card: "),
    "no example": ("bert", remove_examples, "the example of its card: it has none"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("alone")
def test_fault_is_named(
    tmp_path: Path, export_of: ExportOf, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fault of an export ends the script with 1 and a line that names it."""
    name, change, message = FAULTS[fault]
    export = Path(shutil.copytree(export_of(name), tmp_path / name))
    change(export)
    with pytest.raises(SystemExit) as ended:
        plain_load.main(export, name)
    assert ended.value.code == 1
    assert message in capsys.readouterr().out.splitlines()[-1]


def test_fresh_process_uses_export(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process publishes what works; what does not leaves no folder behind."""
    monkeypatch.setattr(huggingface, "check_in_fresh_process", check_in_fresh_process)
    make_run(tmp_path / "a run", tiny_tokenizer, "student", tiny_shape)
    assert publish(tmp_path / "a run", tmp_path / "an export", repository="org/name")
    assert 'from_pretrained("org/name")' in (tmp_path / "an export" / "README.md").read_text()
    written = huggingface.write_tokenizer_files

    def write_with_fault(tokenizer: Any, folder: Path, shape: BertShape) -> None:
        written(tokenizer, folder, shape)
        edit("tokenizer_config.json", model_max_length=512)(folder)

    monkeypatch.setattr(huggingface, "write_tokenizer_files", write_with_fault)
    with pytest.raises(UserError, match=r"fresh process \(AutoTokenizer: model_max_length is 512"):
        publish(tmp_path / "a run", tmp_path / "another")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a run", "an export"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('loading'); print('the reason'); raise SystemExit(1)", "(the reason)"),
        ("import no_such_module", "(ModuleNotFoundError: No module named 'no_such_module')"),
        ("import os; os.kill(os.getpid(), 9)", "(it ended with code -9)"),
    ],
)
def test_any_end_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    """A process that cannot start, or is killed, is a refusal with a reason too."""
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setattr(fresh_process, "SCRIPT", tmp_path / "script.py")
    with pytest.raises(UserError) as refused:
        check_in_fresh_process(tmp_path, "a-model")
    assert f"fresh process {reason}, so" in str(refused.value)


def test_script_imports_nothing_of_project() -> None:
    """The script runs where this project is not installed."""
    lines = Path(plain_load.__file__).read_text(encoding="utf-8").splitlines()
    imports = [line.split()[1] for line in lines if line.startswith(("from ", "import "))]
    roots = {name.split(".")[0] for name in imports}
    assert not roots & {"pretrain", "data_prep", "launch"}
    assert roots - set(sys.stdlib_module_names) <= {"torch", "transformers", "safetensors"}
