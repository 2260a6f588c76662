"""Fine-tuning as a person types it: each task is learnt, and leaves what is promised."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from data_prep.errors import UserError
from tests.launch.downstream.toy_tasks import (
    write_classification,
    write_qa,
    write_regression,
    write_tokens,
)

Finetune = Callable[..., dict[str, Any]]
QUICK = ["--batch-rows", "8", "--lr", "3e-3", "--epochs", "6"]


def predictions_of(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of predictions.jsonl."""
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_classification_with_teacher(
    run_finetune: Finetune, published_teacher: Path, tmp_path: Path
) -> None:
    """Model and teacher are fine-tuned alike; results, predictions and pictures are complete."""
    switches = write_classification(tmp_path)
    more = ["--teacher", str(published_teacher), "--seeds", "2", "--lr", "1e-7", "3e-3"]
    found = run_finetune(*switches, *QUICK, *more)
    assert found["task"] == "classification" and found["model"] == str(published_teacher)
    assert found["examples"] == {"train": 96, "dev": 32, "test": 32}
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["median"] >= 0.95 and len(accuracy["per_seed"]) == 2
    assert accuracy["min"] == min(accuracy["per_seed"]) <= accuracy["median"] <= accuracy["max"]
    assert accuracy["interval"][0] <= accuracy["median"] <= accuracy["interval"][1] + 1e-9
    assert found["rate"] == 3e-3 and [tried["rate"] for tried in found["tried"]] == [1e-7, 3e-3]
    # Both are the same model, so equal care gives equal scores.
    assert found["teacher"]["metrics"] == found["metrics"]
    assert set(found["retention"].values()) == {1.0}
    assert found["parameters"] == found["teacher"]["parameters"] > 10_000
    assert (
        found["speed"]["cpu"]["batch_1"]["p95_ms"] >= found["speed"]["cpu"]["batch_1"]["median_ms"]
    )
    lines = predictions_of(tmp_path / "out")
    right = sum(line["label"] == line["prediction"] for line in lines)
    assert right / len(lines) == pytest.approx(accuracy["per_seed"][found["median_seed"]])
    assert all(0.5 <= line["probability"] <= 1 for line in lines)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = ("confusion_matrix", "roc", "precision_recall", "calibration", "score_latency")
    assert {f"{name}.png" for name in pictures} | {"tensorboard", "model", "teacher"} <= names
    assert len(list((tmp_path / "out" / "tensorboard").rglob("*tfevents*"))) == 5


def test_saved_model_serves_alone(run_finetune: Finetune, tmp_path: Path) -> None:
    """The folder that is left gives the same labels through plain transformers."""
    run_finetune(*write_classification(tmp_path), *QUICK)
    classify = pipeline("text-classification", str(tmp_path / "out" / "model"))
    for line in predictions_of(tmp_path / "out")[:8]:
        (found,) = classify([line["text"]])
        assert found["label"] == line["prediction"]
        assert found["score"] == pytest.approx(line["probability"], abs=1e-4)


def test_same_seed_same_results(run_finetune: Finetune, tmp_path: Path) -> None:
    """The same command gives the same scores and predictions, to the last digit."""
    switches = [*write_classification(tmp_path), *QUICK, "--epochs", "2"]
    first, second = (run_finetune(*switches, out=name) for name in ("one", "two"))
    assert first["metrics"] == second["metrics"]
    assert predictions_of(tmp_path / "one") == predictions_of(tmp_path / "two")


def test_regression_of_pairs(run_finetune: Finetune, tmp_path: Path) -> None:
    """Numbers of pairs are learnt, and the saved model gives them on their own scale."""
    found = run_finetune(*write_regression(tmp_path), *QUICK)
    assert found["metrics"]["pearson"]["median"] >= 0.9
    assert found["metrics"]["spearman"]["median"] >= 0.8
    assert found["metrics"]["mae"]["median"] < 2.5, "labels are 10 and 20"
    lines = predictions_of(tmp_path / "out")
    assert {line["label"] for line in lines} == {10.0, 20.0}
    score = pipeline("text-classification", str(tmp_path / "out/model"), function_to_apply="none")
    (number,) = score([{"text": lines[0]["text"], "text_pair": lines[0]["text_pair"]}])
    assert number["score"] == pytest.approx(lines[0]["prediction"], abs=1e-2)
    assert (tmp_path / "out" / "scatter.png").is_file()


def test_entities_of_sentences(run_finetune: Finetune, tmp_path: Path) -> None:
    """Entities are learnt and scored whole."""
    found = run_finetune(*write_tokens(tmp_path), *QUICK)
    assert found["metrics"]["f1"]["median"] >= 0.95
    assert set(found["labels"]) == {"O", "B-x", "I-x"}
    line = predictions_of(tmp_path / "out")[0]
    assert len(line["text"]) == len(line["label"]) == len(line["prediction"]) == 5
    assert len(line["probability"]) == 5
    assert (tmp_path / "out" / "entity_types.png").is_file()


def test_answers_and_no_answers(run_finetune: Finetune, tmp_path: Path) -> None:
    """Answers are found, and "" is given where there is none."""
    found = run_finetune(*write_qa(tmp_path), *QUICK)
    assert found["metrics"]["exact_match"]["median"] >= 0.9
    lines = predictions_of(tmp_path / "out")
    assert {line["prediction"] for line in lines if not line["label"]} <= {"", lines[1]["label"][0]}
    assert sum(line["prediction"] == "" for line in lines) == 8


def test_several_labels(run_finetune: Finetune, tmp_path: Path) -> None:
    """Cells of several labels make a model that gives any number of labels."""
    switches = write_classification(tmp_path)
    for name in ("train", "dev", "test"):
        path = tmp_path / f"{name}.csv"
        path.write_text(
            path.read_text("utf-8").replace(",yes", ",a+b").replace(",no", ",a"), "utf-8"
        )
    # A third label, so that none is on all examples.
    for name in ("train", "dev", "test"):
        with (tmp_path / f"{name}.csv").open("a", encoding="utf-8") as file:
            file.write("\nlorn,\nbrake brake,")
    found = run_finetune(*switches, *QUICK, "--epochs", "12", "--label-separator", "+")
    assert found["metrics"]["f1_micro"]["median"] >= 0.9 and "auc" in found["metrics"]
    found_labels = {tuple(line["prediction"]) for line in predictions_of(tmp_path / "out")}
    assert found_labels >= {
        ("a",),
        ("a", "b"),
    }


def test_class_weights_and_early_stopping(run_finetune: Finetune, tmp_path: Path) -> None:
    """Weights, early stopping, bf16 and gradient checkpointing train as well."""
    more = ["--class-weights", "--early-stopping", "1", "--bf16", "--gradient-checkpointing"]
    found = run_finetune(*write_classification(tmp_path), *QUICK, *more, "--choose-by", "mcc")
    assert found["metrics"]["accuracy"]["median"] >= 0.9 and found["chosen_by"] == "mcc"


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        (["--text", "sentence"], "no column 'sentence' but 'text', 'label'"),
        (["--epochs", "0"], "--epochs 0 does not fit"),
        (["--lr", "-1"], "--lr"),
        (["--fp16"], "--fp16 needs a GPU"),
        (["--choose-by", "loss"], "--choose-by loss is no score"),
        (["--points", "missing.json"], "--points missing.json is no results.json"),
        (["--teacher", "org/no-such-model"], "is not in the hub's cache.*No model is in export/"),
        (["--teacher", "./nowhere"], "There is no folder ./nowhere"),
    ],
)
def test_wrong_switches_are_refused(
    run_finetune: Finetune,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    switches: list[str],
    message: str,
) -> None:
    """What is wrong is said in one sentence before anything is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=message):
        run_finetune(*write_classification(tmp_path), *switches)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", ["config.yaml", "teacher/checkpoints/weights"])
def test_out_of_other_files_is_refused(
    run_finetune: Finetune, published_teacher: Path, tmp_path: Path, kept: str
) -> None:
    """A folder with files of another command is refused before training, and stays as it is."""
    file = tmp_path / "runs" / kept
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(UserError, match=r"runs holds files that launch/finetune\.py did not make"):
        switches = [*write_classification(tmp_path), "--teacher", str(published_teacher)]
        run_finetune(*switches, out="runs")
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == [file]


def test_own_out_is_replaced(
    run_finetune: Finetune, published_teacher: Path, tmp_path: Path
) -> None:
    """A call replaces what an earlier one left, but no folder that was put there since."""
    switches = [*write_classification(tmp_path), *QUICK, "--epochs", "1"]
    run_finetune(*switches)
    stale = tmp_path / "out" / "model" / "stale"
    stale.touch()
    run_finetune(*switches)
    assert not stale.exists()
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"model", "tensorboard"}
    kept = tmp_path / "out" / "teacher" / "weights"
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(UserError, match=r"would replace .*teacher, which launch/finetune\.py did"):
        run_finetune(*switches, "--teacher", str(published_teacher))
    assert kept.exists()
