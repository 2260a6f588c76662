"""Scores are found once for a model and a question, and again when either has changed."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.manifest import write_manifest
from launch.held_out import HeldOutScores
from launch.studies import scores
from launch.studies.options import StudyRecipe
from launch.studies.scores import read_training_flops, score_study
from launch.studies.trials import trials_of
from pretrain.model import BertShape
from pretrain.model.loading import WEIGHTS
from pretrain.monitoring.flops import training_flops


@pytest.fixture(scope="session")
def tiny_shape(tiny_shape: BertShape) -> BertShape:
    """Give the published teacher the positions that are scored."""
    return dataclasses.replace(tiny_shape, positions=128)


@pytest.fixture
def study(
    tmp_path: Path,
    published_teacher: Path,
    tiny_shape: BertShape,
    tiny_corpus: Path,
    tiny_tokenizer: Path,
) -> StudyRecipe:
    """Return a study whose only student is trained already: it is a copy of its teacher."""
    recipe = tmp_path / "student.yaml"
    groups = [("run", "unused"), ("corpus", tiny_corpus), ("tokenizer", tiny_tokenizer)]
    lines = [f"{group}: {{path: {path}}}" for group, path in groups]
    lines.append("train: {steps: 2, batch_rows: 8, micro_rows: 2, row_tokens: 64}")
    recipe.write_text("\n".join(lines), encoding="utf-8")
    made = StudyRecipe.model_validate(
        {
            "path": tmp_path / "study",
            "teacher": published_teacher,
            "recipe": recipe,
            "seeds": [0, 1],
            "held_out_rows": 8,
            "methods": [{"name": "copy", "what": "a copy"}],
        }
    )
    for trial in trials_of(made):
        shutil.copytree(published_teacher, trial.export)
        trial.run.mkdir(parents=True)
        (trial.run / "metrics.jsonl").write_text(metrics(), encoding="utf-8")
        write_facts(trial.run, tiny_shape, ranks=1)
    return made


def write_facts(run: Path, shape: BertShape, ranks: int) -> None:
    """Leave a checkpoint of so many ranks in a run folder."""
    checkpoint = run / "checkpoints" / "step_00000002"
    checkpoint.mkdir(parents=True)
    save_file({"weight": torch.zeros(1)}, checkpoint / WEIGHTS)
    facts = {"world_size": ranks, "shape": shape.to_dict(), "step": 2}
    write_manifest(checkpoint, facts, [WEIGHTS])


def remove_head(folder: Path) -> None:
    """Leave the encoder alone in a published folder."""
    weights = load_file(folder / WEIGHTS)
    save_file({n: t for n, t in weights.items() if not n.startswith("cls.")}, folder / WEIGHTS)


def metrics() -> str:
    """Return two intervals of a run, the second of them logged again after a restart."""
    slow = {"step": 1, "speed/tflops": 1e-6, "speed/tokens_per_s": 500, "progress/tokens": 1000}
    fast = {"step": 2, "speed/tflops": 4e-6, "speed/tokens_per_s": 1000, "progress/tokens": 1500}
    lines = [{"step": 0, "validation/loss_mlm": 9.0}, slow, fast, fast]
    return "\n".join(json.dumps(line) for line in lines)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the scoring of held-out tokens by one that records the folders."""
    folders: list[Path] = []

    def score(path: Path, corpus: Path, rows: int) -> HeldOutScores:
        folders.append(path)
        return HeldOutScores(parameters=10, loss=1.0, accuracy=0.5, baseline_accuracy=0.1)

    monkeypatch.setattr(scores, "score_held_out", score)
    return folders


def test_teacher_copy_scores_as_teacher(study: StudyRecipe) -> None:
    """A copy of the teacher has the teacher's scores."""
    found = score_study(study, list(trials_of(study)), [])
    teacher, untrained, copied, copy = found["rows"]
    names = ["teacher", "untrained", "copied", "copy"]
    assert [row["name"] for row in found["rows"]] == names
    assert copy["seeds"] == teacher["seeds"]
    # The default objectives compare hidden states, those of copied layers with the teacher's.
    # The teacher's own weights are those of seed 0, so seed 1 is what differs from them.
    before = [row["seeds"][1]["layer_losses"]["hidden_cosine"] for row in (untrained, copied)]
    assert before[0] > before[1] > 0
    assert copied["parameters"] < teacher["parameters"] == copy["parameters"]
    assert teacher["seeds"][0]["loss"] > 0
    assert "loss" not in untrained["seeds"][0], "random weights have no held-out scores"
    assert found["budget"]["steps"] == 2


def test_scores_are_cached(study: StudyRecipe, scored: list[Path]) -> None:
    """A score is computed once and then read from its file."""
    trials = list(trials_of(study))
    first = score_study(study, trials, [])
    count = len(scored)
    assert score_study(study, trials, []) == first
    assert len(scored) == count == 4  # two models, two seeds
    kept = sorted(path.name for path in (study.path / "scores").iterdir())
    names = ("copied", "copy", "teacher", "untrained")
    assert kept == [f"{name}-{seed}" for name in names for seed in (0, 1)]


def test_changed_model_is_scored_again(study: StudyRecipe, scored: list[Path]) -> None:
    """A model that has changed is scored again."""
    trials = list(trials_of(study))
    score_study(study, trials, [])
    scored.clear()
    weights = load_file(trials[1].export / WEIGHTS)
    next(iter(weights.values())).add_(1.0)
    save_file(weights, trials[1].export / WEIGHTS)
    score_study(study, trials, [])
    assert scored == [trials[1].export]
    save_file(weights, trials[0].export / WEIGHTS)  # random weights have its shape alone
    scored.clear()
    score_study(study, trials, [])
    assert scored == [trials[0].export]


def test_changed_settings_are_scored_again(study: StudyRecipe, scored: list[Path]) -> None:
    """Other settings of a score replace its cached result."""
    trials = list(trials_of(study))
    score_study(study, trials, [])
    scored.clear()
    score_study(study.model_copy(update={"held_out_rows": 4}), trials, [])
    assert len(scored) == 4


def test_teacher_without_head_is_scored_by_layers(
    study: StudyRecipe, scored: list[Path], tmp_path: Path
) -> None:
    """With a teacher without an MLM head no MLM loss is scored, but losses of layers are."""
    bare = tmp_path / "bare"
    shutil.copytree(study.teacher, bare)
    remove_head(bare)
    for trial in trials_of(study):
        remove_head(trial.export)
        lines = [{"step": n, "validation/loss_relations": 2.0 - n} for n in (0, 1)]
        with (trial.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(f"\n{json.dumps(line)}" for line in lines)
    layers_alone = {"objectives": [{"kind": "relations", "heads": 4}]}
    headless = study.model_copy(update={"teacher": bare, "keys": layers_alone})
    *_, copy = score_study(headless, list(trials_of(study)), [])["rows"]
    assert scored == []
    expected = {"relations": 1.0}
    assert [seed["layer_losses"] for seed in copy["seeds"]] == [expected] * 2


def test_student_without_head_has_no_loss(study: StudyRecipe, scored: list[Path]) -> None:
    """A student without an MLM head has no MLM loss; its teacher, which has one, has."""
    for trial in trials_of(study):
        remove_head(trial.export)
    teacher, *_, copy = score_study(study, list(trials_of(study)), [])["rows"]
    assert scored == [study.teacher] * 2
    assert all("loss" in seed for seed in teacher["seeds"])
    assert not any("loss" in seed for seed in copy["seeds"])


def test_training_flops_sum_log_intervals(study: StudyRecipe) -> None:
    """Training FLOPs are summed over the log intervals, whatever their speed."""
    run = next(trials_of(study)).run
    # 1e6 operations a second at 500 tokens a second are 2,000 a token; then they are 4,000.
    assert read_training_flops(run) == pytest.approx(2000 * 1000 + 4000 * 500)


@pytest.mark.parametrize("ranks", [1, 4])
def test_training_flops_match_formula(tiny_shape: BertShape, tmp_path: Path, ranks: int) -> None:
    """Training FLOPs read from a run equal the formula over all ranks."""
    counts = {"tokens": 640, "squares": 9000, "masked": 96, "samples": 20}
    flops = training_flops(tiny_shape, counts)
    line = {"step": 5, "speed/tokens_per_s": 3.0, "progress/tokens": 640}
    # A run logs the rate of one device, and the speed of all.
    line["speed/tflops"] = flops / 640 * 3.0 / 1e12 / ranks
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line), encoding="utf-8")
    write_facts(tmp_path, tiny_shape, ranks)
    assert read_training_flops(tmp_path) == pytest.approx(flops)
