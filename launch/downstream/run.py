"""A fine-tuning from its files to its results: read, check, train, time, draw, write."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from launch.downstream import pictures
from launch.downstream.data.splits import read_splits
from launch.downstream.models import open_source
from launch.downstream.options import MODEL, TEACHER, FinetuneOptions
from launch.downstream.own_folders import check_out, mark
from launch.downstream.protocol import Outcome, finetune
from launch.downstream.results import (
    PREDICTIONS,
    RESULTS,
    TENSORBOARD,
    describe,
    write_predictions,
    write_results,
    write_tensorboard,
)
from launch.downstream.speed import load_saved, time_models
from launch.downstream.tasks.base import Task
from launch.downstream.tasks.factory import make_task
from launch.downstream.training import check_device
from pretrain.distributed import refuse_ranks


def run_finetuning(options: FinetuneOptions) -> dict[str, Any]:
    """Fine-tune a model, and its teacher, and write everything to the folder `--out`.

    Returns:
        the content of results.json.

    Raises:
        UserError: for what is wrong with the switches, the files or the models, before training.
    """
    refuse_ranks("launch/finetune.py trains on all GPUs of its machine by itself")
    check_device(options)
    _check_out(options)
    points = [point for path in options.points for point in _read_points(path)]
    splits = read_splits(options)
    task = make_task(options, splits)
    names = {MODEL: options.model} | ({TEACHER: options.teacher} if options.teacher else {})
    sources = {
        role: open_source(name, task.head, options.max_tokens) for role, name in names.items()
    }
    notes = [*splits.notes, *(note for source in sources.values() for note in source.notes)]
    if not pictures.has_matplotlib():
        notes.append(pictures.NO_MATPLOTLIB)
    for note in notes:
        _say(note)
    mark(options.out)
    outcomes = {
        role: finetune(source, task, splits, options, options.out / role, print)
        for role, source in sources.items()
    }
    notes += _late_notes(task, outcomes)
    speeds = _time(outcomes, task, splits.test)
    student, teacher = outcomes[MODEL], outcomes.get(TEACHER)
    found = describe(options, splits, task.chosen_by, student, teacher, speeds, notes)
    for role, outcome in outcomes.items():
        name = PREDICTIONS if role == MODEL else f"{role}_{PREDICTIONS}"
        predictions = outcome.median_seed.predictions
        write_predictions(options.out / name, options.task, splits.test, predictions)
    drawn = _draw(options, task, splits.test, outcomes, found, points)
    write_tensorboard(options.out, outcomes, drawn)
    write_results(options.out, found)
    print("\n".join(table_lines(found)))
    print(f"{options.out / RESULTS}")
    return found


def _say(note: str) -> None:
    print(f"note: {note}", file=sys.stderr, flush=True)


def _check_out(options: FinetuneOptions) -> None:
    made = {(options.out / role).resolve() for role in (MODEL, TEACHER)}
    for name in filter(None, (options.model, options.teacher)):
        if Path(name).resolve() in made | {options.out.resolve()}:
            raise UserError(
                f"--out {options.out} would replace the model {name}: name another folder."
            )
    roles = (MODEL, TEACHER) if options.teacher else (MODEL,)
    check_out(options.out, [*roles, TENSORBOARD])


def _late_notes(task: Task, outcomes: dict[str, Outcome]) -> list[str]:
    """Say, and return, what training has shown."""
    notes = []
    for outcome in outcomes.values():
        name, limit = outcome.source.name, outcome.source.max_tokens
        for part, count in outcome.too_long.items():
            if count:
                notes.append(
                    f"{name}: {count} {part} examples are longer than {limit} tokens: "
                    + ("read in windows" if task.has_windows else "cut")
                )
        undefined = {k: why for seed in outcome.seeds for k, why in seed.test.undefined.items()}
        notes += [f"{name}: {metric} is left out: {why}" for metric, why in undefined.items()]
    for note in notes:
        _say(note)
    return notes


def _time(outcomes: dict[str, Outcome], task: Task, test: Sequence[Any]) -> list[dict[str, Any]]:
    models = [load_saved(outcome.folder, task.head) for outcome in outcomes.values()]
    tokenizers = [outcome.source.tokenizer for outcome in outcomes.values()]
    encoded = [
        task.encode(outcome.source.tokenizer, test, outcome.source.max_tokens, False)
        for outcome in outcomes.values()
    ]
    return time_models(models, tokenizers, encoded)


def _draw(
    options: FinetuneOptions,
    task: Task,
    test: Sequence[Any],
    outcomes: dict[str, Outcome],
    found: dict[str, Any],
    points: Sequence[pictures.Point],
) -> list[Path]:
    if not pictures.has_matplotlib():
        return []
    predictions = outcomes[MODEL].median_seed.predictions
    drawn = pictures.draw_model(task, test, predictions, options.out)
    own = _points_of(found, is_own=True)
    if own:
        drawn.append(pictures.draw_score_latency([*points, *own], task.chosen_by, options.out))
    return drawn


def _points_of(found: dict[str, Any], is_own: bool) -> list[pictures.Point]:
    """Return the models of a results.json as points, where the score is defined."""
    name = found["chosen_by"]
    return [
        pictures.Point(
            Path(part["model"]).name,
            part["speed"]["cpu"]["batch_1"]["median_ms"],
            part["metrics"][name]["median"],
            is_own,
        )
        for part in (found, found["teacher"])
        if part is not None and name in part["metrics"]
    ]


def _read_points(path: Path) -> list[pictures.Point]:
    try:
        return _points_of(json.loads(path.read_text(encoding="utf-8")), is_own=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--points {path} is no results.json of launch/finetune.py "
            f"({type(error).__name__}: {error}): correct it."
        ) from None


def table_lines(found: dict[str, Any]) -> list[str]:
    """Return the scores of model and teacher beside each other, and what they cost."""
    teacher = found["teacher"]
    seeds = len(found["seeds"])
    lines = [
        f"{'':18} {'model':>9} {'min':>9} {'max':>9}"
        + (f" {'teacher':>9} {'retention':>10}" if teacher else "")
    ]
    for name, own in found["metrics"].items():
        line = f"{name:18} {own['median']:9.4f} {own['min']:9.4f} {own['max']:9.4f}"
        if teacher and name in teacher["metrics"]:
            share = found["retention"].get(name)
            line += f" {teacher['metrics'][name]['median']:9.4f}"
            line += f" {share:10.1%}" if share is not None else f" {'':>10}"
        lines.append(line)
    for title, values in _costs(found):
        line = f"{title:18} {values[0]:>9} {'':>9} {'':>9}"
        lines.append(line + (f" {values[1]:>9}" if teacher else ""))
    lines.append(
        f"(test: {found['examples']['test']} examples; medians of {seeds} seeds; "
        f"{found['speed']['cpu']['threads']} CPU threads)"
    )
    return lines


def _costs(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    parts = [part for part in (found, found["teacher"]) if part]
    speeds = [part["speed"]["cpu"] for part in parts]
    return [
        ("parameters (M)", [f"{part['parameters'] / 1e6:.2f}" for part in parts]),
        ("file (MiB)", [f"{part['weights_bytes'] / 2**20:.1f}" for part in parts]),
        ("ms, 1 text", [f"{speed['batch_1']['median_ms']:.2f}" for speed in speeds]),
        ("ms, 32 texts", [f"{speed['batch_32']['median_ms']:.1f}" for speed in speeds]),
        ("texts/s", [f"{speed['examples_per_s']:.0f}" for speed in speeds]),
    ]
