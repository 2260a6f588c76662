"""Positions of an export: those that training has not reached are refused, or cut off."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data_prep.errors import UserError
from pretrain.export.huggingface import FACTS, publish
from pretrain.model import BertShape
from pretrain.model.loading import WEIGHTS, load_trained, locate
from tests.run_folders import make_run

EMBEDDINGS = "position_embeddings.weight"


@pytest.fixture
def run(tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape) -> Any:
    """Return a function that writes a run folder with some facts."""

    def make(kind: str = "teacher", **changes: Any) -> Path:
        make_run(tmp_path / "run", tiny_tokenizer, kind, tiny_shape, **changes)
        return tmp_path / "run"

    return make


def embeddings_of(folder: Path) -> torch.Tensor:
    (found,) = [t for name, t in load_file(folder / WEIGHTS).items() if name.endswith(EMBEDDINGS)]
    return found


def test_unreached_positions_are_refused(run: Any, tmp_path: Path) -> None:
    """A run stopped in a phase of short rows is refused with the option that publishes it."""
    folder = run(trained_positions=32)
    with pytest.raises(UserError, match=r"positions 32 to 63 are as they .* --positions 32"):
        publish(folder, tmp_path / "export", "mit", "en")
    with pytest.raises(UserError, match="has reached 32 positions"):
        publish(folder, tmp_path / "export", "mit", "en", positions=33)
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_untrained_positions_are_cut_off(kind: str, run: Any, tmp_path: Path) -> None:
    """Configuration, weights, facts and card have the positions that are left, and no others."""
    folder, export = run(kind, trained_positions=32), tmp_path / "export"
    assert publish(folder, export, "mit", "en", positions=32)
    assert not publish(folder, export, "mit", "en", positions=32), "it is up to date"
    config = json.loads((export / "config.json").read_text(encoding="utf-8"))
    assert config["max_position_embeddings"] == 32
    (weights,) = (folder / "checkpoints").glob("step_*")
    assert torch.equal(embeddings_of(export), embeddings_of(weights)[:32])
    facts = json.loads((export / FACTS).read_text(encoding="utf-8"))
    assert facts["trained_positions"] == facts["shape"]["positions"] == 32
    assert facts["parameters"] == load_trained(export).model.count_parameters()
    assert facts["validation"] == {}, "its rows of 64 tokens need the positions that are gone"
    assert "32 tokens" in (export / "README.md").read_text(encoding="utf-8")
    assert locate(export).trained_positions == 32


def test_impossible_positions_are_refused(run: Any, tmp_path: Path) -> None:
    """More positions than the model has, and too few for a text, are refused."""
    folder = run()
    for wanted in (65, 15, 0, -1):
        with pytest.raises(UserError, match=f"--positions is {wanted}, .*: choose from 16 to 64"):
            publish(folder, tmp_path / "export", "mit", "en", positions=wanted)


def test_older_run_is_judged_by_its_rows(run: Any, tmp_path: Path) -> None:
    """Without the entry in its manifest, the rows of a recipe say what it trained."""
    folder, export = run(trained_positions=None), tmp_path / "export"
    (manifest,) = folder.glob("checkpoints/step_*/manifest.json")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    del content["trained_positions"]
    content["identity"]["train.row_tokens"] = 48
    manifest.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="--positions 48"):
        publish(folder, export, "mit", "en")
    assert publish(folder, export, "mit", "en", positions=48)


def test_older_student_needs_a_persons_word(run: Any, tmp_path: Path) -> None:
    """What the teacher of an older student trained is not recorded: both choices are offered."""
    folder, export = run("student", trained_positions=None), tmp_path / "export"
    assert publish(folder, export, "mit", "en"), "its rows are as long as its positions"
    (manifest,) = folder.glob("checkpoints/step_*/manifest.json")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["identity"]["train.row_tokens"] = 48
    manifest.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"--positions 48, or with --positions 64 if"):
        publish(folder, export, "mit", "en")
    assert publish(folder, export, "mit", "en", positions=64)
    assert len(embeddings_of(export)) == 64
