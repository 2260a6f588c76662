"""The scores of a study's models, cached until a model or the settings of a score change."""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.corpus.shards import Corpus
from data_prep.manifest import file_sha256, write_json
from launch.held_out import score_held_out
from launch.studies.classification import best_accuracy
from launch.studies.options import StudyRecipe
from launch.studies.tasks import Task
from launch.studies.trials import Trial, recipe_of
from pretrain.export.huggingface import publish
from pretrain.model.loading import WEIGHTS, locate
from pretrain.monitoring.logger import read_metrics

_TERA = 1e12
# What methods share, for readers of the report.
_BUDGET = ("steps", "batch_rows", "row_tokens")


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
        masked tokens and, by name, the `tasks` as `best_accuracy` has them.
    """
    recipe = recipe_of(study, trials[0])
    corpus = Corpus.open(recipe.corpus.path, "validation")
    rows = [_row(study, subject, corpus, tasks) for subject in _subjects(study, trials)]
    return {"budget": {key: getattr(recipe.train, key) for key in _BUDGET}, "rows": rows}


def _subjects(study: StudyRecipe, trials: Sequence[Trial]) -> Iterator[Subject]:
    teacher = dict.fromkeys(study.seeds, _published_teacher(study))
    yield Subject("teacher", "of all students", teacher)
    shape = dict.fromkeys(study.seeds, trials[0].export)
    yield Subject("untrained", "random weights, fine-tuned alone", shape, random=True)
    for method in study.methods:
        own = [trial for trial in trials if trial.method == method]
        exports = {trial.seed: trial.export for trial in own}
        yield Subject(method.name, method.what, exports, tuple(trial.run for trial in own))


def _published_teacher(study: StudyRecipe) -> Path:
    """Return the teacher as a plain folder: a run is published, others are one already."""
    if not (study.teacher / "checkpoints").is_dir():
        return study.teacher
    export = study.path / "exports" / "teacher"
    publish(study.teacher, export, license_name="other", language="en")
    return export


def _row(
    study: StudyRecipe, subject: Subject, corpus: Corpus, tasks: Sequence[Task]
) -> dict[str, Any]:
    seeds = [
        {"seed": seed, **_scores(study, subject, seed, corpus, tasks)} for seed in subject.exports
    ]
    sizes = [scores.pop("parameters") for scores in seeds]
    flops = [read_training_flops(run) for run in subject.runs]
    return {
        "name": subject.name,
        "what": subject.what,
        "parameters": sizes[0],
        "training_flops": statistics.mean(flops) if flops else 0.0,
        "seeds": seeds,
    }


def _scores(
    study: StudyRecipe, subject: Subject, seed: int, corpus: Corpus, tasks: Sequence[Task]
) -> dict[str, Any]:
    """Return a model's scores; each is computed once and cached in a file of its own."""
    export = subject.exports[seed]
    folder = study.path / "scores" / f"{subject.name}-{seed}"
    # Of random weights, the shape alone decides.
    decides = "config.json" if subject.random else WEIGHTS
    model = {"model": file_sha256(export / decides), "random": subject.random}
    held_out = _cached(
        folder / "held_out.json",
        {**model, "corpus": corpus.fingerprint, "rows": study.held_out_rows},
        lambda: score_held_out(export, corpus.path, study.held_out_rows)._asdict(),
    )
    found = {}
    for task in tasks:
        found[task.options.name] = _cached(
            folder / f"{task.options.name}.json",
            {**model, "seed": seed, "task": task.fingerprint},
            partial(best_accuracy, export, task, seed, random=subject.random),
        )
    # Held-out scores of random weights mean nothing: only the size is reported.
    held_out_row = {"parameters": held_out["parameters"]} if subject.random else held_out
    return {**held_out_row, "tasks": found}


def _cached(
    path: Path, settings: dict[str, Any], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return the scores in a file if they are of the same settings, else compute and write them."""
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["question"] == settings:
            return dict(kept["answer"])
    print(f"scoring {path.parent.name}: {path.stem}", flush=True)
    found = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"question": settings, "answer": found})
    return found


def read_training_flops(run: Path) -> float:
    """Return the operations of a run: of each log interval, those of a token times its tokens.

    Those of a token are the logged rate of all ranks over the logged speed, both of the same
    interval, so that it does not matter how busy the machine was. A step that was logged again
    after a restart counts once.
    """
    logged = {
        line["step"]: line for line in read_metrics(run / "metrics.jsonl") if "speed/tflops" in line
    }
    facts = locate(run).facts
    ranks = facts.world_size if facts else 1
    total, before = 0.0, 0
    for _, line in sorted(logged.items()):
        of_a_token = ranks * line["speed/tflops"] * _TERA / line["speed/tokens_per_s"]
        total += of_a_token * (line["progress/tokens"] - before)
        before = line["progress/tokens"]
    return total
