"""Where weights come from: a run's newest checkpoint, or an exported folder. safetensors only."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from data_prep.errors import UserError
from pretrain.checkpoint import find_newest
from pretrain.model import Bert, BertShape

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with its weights, and what is known of how they were made."""

    model: Bert
    facts: dict[str, Any]  # of the run: step, corpus, tokenizer, identity, validation scores
    source: Path


def load_trained(path: Path) -> TrainedModel:
    """Load a model from a run folder or an export folder.

    Raises:
        UserError: when the folder is neither, or its weights do not fit its shape.
    """
    if (path / "checkpoints").is_dir():
        found = find_newest(path / "checkpoints")
        if found is not None:
            shape = BertShape(**found.facts["shape"])
            weights = _read_weights(found.path / WEIGHTS)
            return _assemble(shape, weights, found.facts, found.path)
    if (path / "config.json").is_file() and (path / WEIGHTS).is_file():
        return _load_export(path)
    raise UserError(
        f"{path} is neither a run folder with a checkpoint nor an exported model "
        f"(config.json and {WEIGHTS}): train the model first, or correct the path."
    )


def _load_export(path: Path) -> TrainedModel:
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    weights = _read_weights(path / WEIGHTS)
    shape = BertShape.from_transformers(config, source=str(path / "config.json"))
    facts_file = path / "stillhouse.json"
    facts = json.loads(facts_file.read_text(encoding="utf-8")) if facts_file.is_file() else {}
    return _assemble(shape, weights, facts, path)


def _assemble(
    shape: BertShape, weights: dict[str, torch.Tensor], facts: dict[str, Any], source: Path
) -> TrainedModel:
    model = Bert(shape)
    expected = set(model.state_dict())
    # Other programs may store the tied decoder a second time; it is the embedding, not more.
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    missing, surplus = expected - weights.keys(), weights.keys() - expected - tied
    if missing or surplus:
        example = sorted(missing or surplus)[0]
        raise UserError(
            f"The weights in {source} do not fit its shape: {len(missing)} tensors are missing and "
            f"{len(surplus)} are unknown, such as {example!r}."
        )
    model.load_state_dict({name: weights[name].float() for name in expected})
    return TrainedModel(model=model, facts=facts, source=source)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"The weights {path} cannot be read: {error}.") from error
