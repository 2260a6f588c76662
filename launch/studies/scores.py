"""The scores of a study's models, cached until a model or the settings of a score change."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.corpus.shards import Corpus
from data_prep.manifest import file_sha256, write_json
from launch.held_out import score_held_out
from launch.studies.classification import Start, best_accuracy
from launch.studies.layer_losses import find_layer_recipe, measure_untrained, read_layer_losses
from launch.studies.options import StudyRecipe
from launch.studies.tasks import Task
from launch.studies.trials import Trial, recipe_of
from pretrain.config.run import identity_of
from pretrain.distil.student import choose_layers, student_shape
from pretrain.export.huggingface import publish
from pretrain.model import Bert
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
    start: Start = "trained"  # other weights instead of the published ones, for the tasks alone


def score_study(
    study: StudyRecipe, trials: Sequence[Trial], tasks: Sequence[Task]
) -> dict[str, Any]:
    """Score the teacher, untrained students, and all trained ones.

    Returns:
        the `budget` of each method, and `rows`: `name`, `what`, `parameters`, `training_flops`
        (0 for what was not trained here), and for each of `seeds` the `loss` and `accuracy` of
        masked tokens (of a model with an MLM head), `layer_losses` on held-out text by
        objective (of students whose recipe has such objectives), and, by name, the `tasks` as
        `best_accuracy` has them.
    """
    recipe = recipe_of(study, trials[0])
    corpus = Corpus.open(recipe.corpus.path, "validation")
    rows = []
    for subject in _subjects(study, trials):
        row = _row(study, subject, corpus, tasks)
        for scores in row["seeds"]:
            scores["layer_losses"] = _layer_losses(study, subject, scores["seed"], trials)
        rows.append(row)
    return {"budget": {key: getattr(recipe.train, key) for key in _BUDGET}, "rows": rows}


def _subjects(study: StudyRecipe, trials: Sequence[Trial]) -> Iterator[Subject]:
    teacher = dict.fromkeys(study.seeds, _published_teacher(study))
    yield Subject("teacher", "of all students", teacher)
    shape = dict.fromkeys(study.seeds, trials[0].export)
    yield Subject("untrained", "random weights, fine-tuned alone", shape, start="random")
    if layers := _copied_layers(study, trials):
        names = ", ".join(map(str, layers))
        yield Subject("copied", f"layers {names} of the teacher, as they are", teacher, (), layers)
    for method in study.methods:
        own = [trial for trial in trials if trial.method == method]
        exports = {trial.seed: trial.export for trial in own}
        yield Subject(method.name, method.what, exports, tuple(trial.run for trial in own))


def _published_teacher(study: StudyRecipe) -> Path:
    """Return the teacher as a plain folder: a run is published, others are one already."""
    if not (study.teacher / "checkpoints").is_dir():
        return study.teacher
    export = study.path / "exports" / "teacher"
    publish(study.teacher, export)
    return export


def _copied_layers(study: StudyRecipe, trials: Sequence[Trial]) -> tuple[int, ...]:
    """Return the layers that the first method with such a start copies whole, if there is one."""
    shape = locate(study.teacher).shape
    for trial in trials:
        options = recipe_of(study, trial).student
        made = student_shape(options, shape, shape.next_sentence)
        whole = dataclasses.replace(made, layers=shape.layers) == shape
        if whole and (layers := choose_layers(options, shape)):
            return tuple(layers)
    return ()


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
    decides = "config.json" if subject.start == "random" else WEIGHTS
    # A list, as it is read back from the file: a tuple would never equal it.
    start = subject.start if isinstance(subject.start, str) else list(subject.start)
    model = {"model": file_sha256(export / decides), "start": start}
    found: dict[str, Any] = {"parameters": _count_parameters(export, subject.start)}
    # Held-out scores of weights that were not trained together mean nothing.
    if subject.start == "trained" and locate(export).has_mlm_head:
        found = _cached(
            folder / "held_out.json",
            {**model, "corpus": corpus.fingerprint, "rows": study.held_out_rows},
            lambda: score_held_out(export, corpus.path, study.held_out_rows)._asdict(),
        )
    found["tasks"] = {
        task.options.name: _cached(
            folder / f"{task.options.name}.json",
            {**model, "seed": seed, "task": task.fingerprint},
            partial(best_accuracy, export, task, seed, subject.start),
        )
        for task in tasks
    }
    return found


def _layer_losses(
    study: StudyRecipe, subject: Subject, seed: int, trials: Sequence[Trial]
) -> dict[str, float]:
    """Return the losses of a student's layers: as its run left them, or before any training."""
    if subject.runs:
        return read_layer_losses(subject.runs[list(subject.exports).index(seed)])
    if subject.start == "trained":  # the teacher
        return {}
    keys: dict[str, Any] = {"init": "random"}
    if subject.start == "random":
        keys["layers"] = locate(subject.exports[seed]).shape.layers
    else:
        keys |= {"init": list(subject.start), "layers": None}
    recipe = find_layer_recipe(study, trials, seed, **keys)
    if recipe is None:
        return {}
    settings = {
        "teacher": locate(study.teacher).sha256,
        "corpus": Corpus.open(recipe.corpus.path, "validation").fingerprint,
        "recipe": identity_of(recipe),
        "rows": recipe.validation.rows,
    }
    path = study.path / "scores" / f"{subject.name}-{seed}" / "layer_losses.json"
    return _cached(path, settings, partial(measure_untrained, recipe))


def _count_parameters(export: Path, start: Start) -> int:
    """Return the parameters of a published model with the layers that it starts with."""
    located = locate(export)
    layers = located.shape.layers if isinstance(start, str) else len(start)
    model = Bert(dataclasses.replace(located.shape, layers=layers))
    if located.has_mlm_head:
        return model.count_parameters()
    return sum(parameter.numel() for parameter in model.bert.parameters())


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
