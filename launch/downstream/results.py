"""What a fine-tuning leaves: results.json, predictions, and TensorBoard."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data_prep.manifest import write_json
from launch.downstream.data.examples import Example
from launch.downstream.data.splits import Splits
from launch.downstream.options import FinetuneOptions
from launch.downstream.own_folders import mark, remove_earlier
from launch.downstream.protocol import Outcome
from launch.downstream.scores.scores import retention, spread
from launch.downstream.tasks.base import Prediction
from pretrain.monitoring.logger import ScalarWriter

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"
TENSORBOARD = "tensorboard"


def describe(
    options: FinetuneOptions,
    splits: Splits,
    chosen_by: str,
    student: Outcome,
    teacher: Outcome | None,
    speeds: Sequence[dict[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        options: of the fine-tuning.
        splits: the examples.
        chosen_by: score that chose rate and epoch on dev.
        student: outcome of `--model`.
        teacher: outcome of `--teacher`.
        speeds: of the student, and of the teacher where there is one.
        notes: all that was said.
    """
    own = _model_part(student, speeds[0])
    found: dict[str, Any] = {
        "task": options.task,
        **own,
        "examples": {"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
        "labels": list(splits.labels),
        "chosen_by": chosen_by,
        "teacher": None,
        "retention": {},
        "notes": list(notes),
        "settings": options.model_dump(mode="json"),
        "device": _device(),
    }
    if teacher is not None:
        other = _model_part(teacher, speeds[1])
        shares, without = retention(own["metrics"], other["metrics"])
        found |= {"teacher": other, "retention": shares}
        if without:
            found["notes"].append(
                f"no retention of {', '.join(without)}: the teacher's score is 0 or below"
            )
    return found


def _model_part(outcome: Outcome, speed: dict[str, Any]) -> dict[str, Any]:
    undefined: dict[str, str] = {}
    for result in outcome.seeds:
        undefined |= result.test.undefined
    return {
        "model": outcome.source.name,
        "metrics": spread([result.test for result in outcome.seeds], outcome.intervals),
        "undefined": undefined,
        "dev": spread([result.fit.dev for result in outcome.seeds], {}),
        "rate": outcome.median_seed.rate,
        "tried": list(outcome.tried),
        "seeds": [
            {"seed": result.seed, "rate": result.rate, "epoch": result.fit.epoch}
            for result in outcome.seeds
        ],
        "median_seed": outcome.median_seed.seed,
        "parameters": outcome.parameters,
        "weights_bytes": outcome.weights_bytes,
        "max_tokens": outcome.source.max_tokens,
        "too_long": outcome.too_long,
        "speed": speed,
    }


def _device() -> dict[str, Any]:
    return {
        "trained_on": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "machine": platform.machine(),
        "cpu_threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def write_results(out: Path, found: dict[str, Any]) -> None:
    """Write results.json."""
    write_json(out / RESULTS, found)


def write_predictions(
    path: Path, task: str, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> None:
    """Write one line an example: id, texts, right label, prediction and its probability."""
    with path.open("w", encoding="utf-8") as file:
        for example, prediction in zip(examples, predictions, strict=True):
            record = {
                "id": example.id,
                **_texts(task, example),
                "label": _plain_label(task, example),
                "prediction": prediction.value,
                "probability": prediction.probability,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _texts(task: str, example: Example) -> dict[str, Any]:
    if task == "qa":
        return {"question": example.pair, "context": example.text}
    if task == "tokens":
        return {"text": list(example.words)}
    return {"text": example.text} | (
        {"text_pair": example.pair} if example.pair is not None else {}
    )


def _plain_label(task: str, example: Example) -> Any:
    if task == "qa":
        return [answer.text for answer in example.label]
    return list(example.label) if isinstance(example.label, tuple) else example.label


def write_tensorboard(out: Path, outcomes: dict[str, Outcome], pictures: Sequence[Path]) -> None:
    """Write losses and dev scores of all trainings, test scores, and the pictures."""
    folder = out / TENSORBOARD
    remove_earlier(folder)
    mark(folder)
    for name, outcome in outcomes.items():
        for result in outcome.seeds:
            writer = ScalarWriter(folder / f"{name}-seed-{result.seed}")
            for step, values in result.fit.history:
                writer.write(step, values)
            last = max(step for step, _ in result.fit.history)
            writer.write(last, {f"test/{tag}": v for tag, v in result.test.values.items()})
            writer.close()
    if pictures:
        writer = ScalarWriter(folder / "pictures")
        for path in pictures:
            writer.write_picture(path.stem, path)
        writer.close()
