"""Latency and throughput of models, in turns on the same texts."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from launch.downstream.tasks.base import Encoded
from launch.downstream.training import accepted_inputs

_BATCHES = (1, 32)
_ROUNDS = 30
_BUDGET_S = 8.0  # of one batch size of one device; slow models have fewer rounds
_LEAST_ROUNDS = 5
_LONGEST = 128  # tokens of the texts that are timed: the same work for all models


def time_models(
    models: Sequence[Any], tokenizers: Sequence[Any], encoded: Sequence[Encoded]
) -> list[dict[str, Any]]:
    """Time models on the first test examples, their tokenisation not included.

    Args:
        models: with their heads.
        tokenizers: of the models.
        encoded: the test examples as each model reads them.

    Returns:
        for each model by device and batch size the median and the 95th percentile of milliseconds
        a batch, and examples a second in the largest batch; with the number of CPU threads.
    """
    found: list[dict[str, Any]] = [{} for _ in models]
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for rows in _BATCHES:
            batches = [
                _batches(model, tokenizer, own, rows, device)
                for model, tokenizer, own in zip(models, tokenizers, encoded, strict=True)
            ]
            times = _take_turns([model.to(device).eval() for model in models], batches, device)
            for own_found, own_times in zip(found, times, strict=True):
                _record(own_found, device, rows, own_times)
    for model in models:
        model.to("cpu")
    return found


def _batches(
    model: Any, tokenizer: Any, encoded: Encoded, rows: int, device: str
) -> list[dict[str, torch.Tensor]]:
    """Return as many batches as there are rounds; the examples start again where they end."""
    features = accepted_inputs(model, encoded.features)
    batches = []
    for round_ in range(_ROUNDS):
        chosen = [features[(round_ * rows + index) % len(features)] for index in range(rows)]
        cut = [{name: row[name][:_LONGEST] for name in row} for row in chosen]
        padded = tokenizer.pad(cut, return_tensors="pt")
        batches.append({name: padded[name].to(device) for name in padded})
    return batches


@torch.inference_mode()
def _take_turns(
    models: Sequence[Any], batches: Sequence[Sequence[dict[str, torch.Tensor]]], device: str
) -> list[list[float]]:
    """Return the seconds of each model's batches; a busy moment hits all models alike."""
    seconds: list[list[float]] = [[] for _ in models]
    for model, own in zip(models, batches, strict=True):  # warms up
        model(**own[0])
    started = time.perf_counter()
    for round_ in range(_ROUNDS):
        for model, own, times in zip(models, batches, seconds, strict=True):
            if device == "cuda":
                torch.cuda.synchronize()
            before = time.perf_counter()
            model(**own[round_])
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
        if time.perf_counter() - started > _BUDGET_S and round_ + 1 >= _LEAST_ROUNDS:
            break
    return seconds


def _record(found: dict[str, Any], device: str, rows: int, seconds: Sequence[float]) -> None:
    own = found.setdefault(device, {})
    median_s = statistics.median(seconds)
    own[f"batch_{rows}"] = {
        "median_ms": 1000 * median_s,
        "p95_ms": 1000 * float(np.percentile(seconds, 95)),
        "rounds": len(seconds),
    }
    if rows == max(_BATCHES):
        own["examples_per_s"] = rows / median_s
    if device == "cpu":
        own["threads"] = torch.get_num_threads()
    else:
        own["name"] = torch.cuda.get_device_name()


def load_saved(folder: Path, head: str) -> Any:
    """Return a fine-tuned model that was left in a folder."""
    import transformers

    return getattr(transformers, head).from_pretrained(folder, dtype=torch.float32)
