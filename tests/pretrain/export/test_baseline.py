"""A model that predicts no better than one constant answer is not published without a word."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.manifest import write_manifest
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.export.baseline import warn_below_baseline
from pretrain.export.huggingface import publish
from pretrain.model import BertShape
from pretrain.model.loading import WEIGHTS
from pretrain.run_facts import RunFacts
from tests.run_folders import facts_of, make_run


def scores(accuracy: float, baseline: float) -> dict[str, float]:
    return {
        "validation/accuracy_mlm": accuracy,
        "validation/accuracy_mlm_baseline": baseline,
        "validation/baseline_token": 30,
    }


@pytest.mark.parametrize(("accuracy", "warns"), [(0.107, True), (0.109, True), (0.11, False)])
def test_model_at_baseline_is_warned_about(
    tiny_tokenizer: Path, accuracy: float, warns: bool
) -> None:
    """The warning has both accuracies and the token."""
    facts = RunFacts(step=1200, validation=scores(accuracy, 0.109))
    warning = warn_below_baseline(facts, tiny_tokenizer)
    token = load_tokenizer(tiny_tokenizer).backend.id_to_token(30)
    start = f"after 1,200 steps the model predicts masked tokens no better ({accuracy:.1%}) than"
    assert (warning or "").startswith(f"{start} always answering {token!r} (10.9%)" * warns)
    assert bool(warning) == warns


def test_older_checkpoints_are_not_warned_about() -> None:
    """A checkpoint without the figure says nothing of it."""
    facts = RunFacts(validation={"validation/accuracy_mlm": 0.0})
    assert warn_below_baseline(facts, Path("nowhere")) is None
    assert warn_below_baseline(RunFacts(), Path("nowhere")) is None


def test_publishing_warns_and_card_states_baseline(
    tmp_path: Path,
    tiny_tokenizer: Path,
    tiny_shape: BertShape,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The warning comes at every publication; the card shows the figure beside the accuracy."""
    run, export = tmp_path / "run", tmp_path / "export"
    model = make_run(run, tiny_tokenizer, "student", tiny_shape)
    assert publish(run, export, "apache-2.0", "en")
    assert "warning" not in capsys.readouterr().err
    assert "most frequent" not in (export / "README.md").read_text(encoding="utf-8")
    facts = facts_of(model, "student", load_tokenizer(tiny_tokenizer).fingerprint)
    below = replace(facts, validation=scores(0.25, 0.3))
    write_manifest(run / "checkpoints" / "step_00000005", below.to_dict(), [WEIGHTS])
    assert publish(run, export, "apache-2.0", "en")
    assert not publish(run, export, "apache-2.0", "en")
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert all(line.startswith(f"warning: {run}: after 5 steps") for line in warnings)
    card = (export / "README.md").read_text(encoding="utf-8")
    assert "| MLM accuracy | 25.00% |" in card
    assert "| of always predicting the most frequent token | 30.00% |" in card
