"""What a study finds out about its models, kept until a model or a question changes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from data_prep.manifest import file_sha256, write_json
from launch.held_out import score_held_out
from launch.studies.classification import best_accuracy
from launch.studies.options import StudyRecipe
from launch.studies.tasks import Task
from launch.studies.trials import Trial, budget_of, recipe_of
from pretrain.publish import publish
from pretrain.run_directory import RunDirectory
from pretrain.weights import WEIGHTS

_TERA = 1e12


class Subject(NamedTuple):
    """A model that is scored once a seed."""

    name: str
    what: str
    exports: dict[int, Path]  # published folders by seed
    runs: tuple[Path, ...] = ()  # those that this study has trained
    random: bool = False  # random weights of that shape instead: what the tasks alone teach


def score_study(
    study: StudyRecipe, trials: Sequence[Trial], tasks: Sequence[Task]
) -> dict[str, Any]:
    """Score the teacher, random weights of the student's shape, and all trained students.

    Returns:
        the `budget` of each method, and `rows`: `name`, `what`, `parameters`, `training_flops`
        (0 for what was not trained here), and for each of `seeds` the `loss` and `accuracy` of
        masked words and, by name, the `tasks` as `best_accuracy` has them.
    """
    recipe = recipe_of(study, trials[0])
    rows = []
    for subject in _subjects(study, trials):
        seeds = []
        for seed, export in subject.exports.items():
            asked = _Question(study, recipe.corpus.path, tasks, seed, subject.random)
            seeds.append({"seed": seed, **_kept_scores(f"{subject.name}-{seed}", export, asked)})
        rows.append(
            {
                "name": subject.name,
                "what": subject.what,
                "parameters": seeds[0]["parameters"],
                "training_flops": sum(map(read_training_flops, subject.runs))
                / max(len(subject.runs), 1),
                "seeds": seeds,
            }
        )
    return {"budget": budget_of(recipe), "rows": rows}


def _subjects(study: StudyRecipe, trials: Sequence[Trial]) -> Iterator[Subject]:
    teacher = _published_teacher(study)
    yield Subject("teacher", "of all students", dict.fromkeys(study.seeds, teacher))
    shape = dict.fromkeys(study.seeds, trials[0].export)
    yield Subject("untrained", "random weights, fine-tuned alone", shape, random=True)
    for method in study.methods:
        own = [trial for trial in trials if trial.method == method]
        exports = {trial.seed: trial.export for trial in own}
        yield Subject(method.name, method.what, exports, tuple(trial.run for trial in own))


def _published_teacher(study: StudyRecipe) -> Path:
    """Return the teacher as a plain folder: a run is published, others are one already."""
    if not RunDirectory(study.teacher).status():
        return study.teacher
    export = study.path / "exports" / "teacher"
    publish(study.teacher, export, license_name="other", language="en")
    return export


class _Question(NamedTuple):
    """What decides the scores of a model, beside its weights."""

    study: StudyRecipe
    corpus: Path
    tasks: Sequence[Task]
    seed: int
    random: bool

    def key(self, export: Path) -> dict[str, Any]:
        return {
            "weights": file_sha256(export / WEIGHTS),
            "seed": self.seed,
            "random": self.random,
            "held_out_rows": self.study.held_out_rows,
            "tasks": [task.options.model_dump(mode="json") for task in self.tasks],
        }

    def answer(self, export: Path) -> dict[str, Any]:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        held_out = score_held_out(export, self.corpus, self.study.held_out_rows)._asdict()
        if self.random:
            held_out = {"parameters": held_out["parameters"]}
        tasks = {
            task.options.name: best_accuracy(export, task, self.seed, device, random=self.random)
            for task in self.tasks
        }
        return {**held_out, "tasks": tasks}


def _kept_scores(name: str, export: Path, question: _Question) -> dict[str, Any]:
    """Return the scores in a model's file if they answer the same question, else find them."""
    path = question.study.path / "scores" / f"{name}.json"
    key = question.key(export)
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["question"] == key:
            return dict(kept["answer"])
    print(f"scoring {name}", flush=True)
    answer = question.answer(export)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"question": key, "answer": answer})
    return answer


def read_training_flops(run: Path) -> float:
    """Return the operations of a run: of each log interval, those of a token times its tokens.

    Those of a token are the logged rate over the logged speed, both of the same interval, so that
    it does not matter how busy the machine was. A step that was logged again counts once.
    """
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = {line["step"]: line for line in map(json.loads, lines) if "speed/tflops" in line}
    total, before = 0.0, 0
    for _, line in sorted(logged.items()):
        of_a_token = line["speed/tflops"] * _TERA / line["speed/tokens_per_s"]
        total += of_a_token * (line["progress/tokens"] - before)
        before = line["progress/tokens"]
    return total
