"""Models to continue pretraining from, and recipes that do."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pretrain.config.run import TeacherRecipe
from pretrain.model.loading import WEIGHTS

EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
NSP = ("cls.seq_relationship.weight", "cls.seq_relationship.bias")


def recipe(start: Path, *, pairs: str = "next_sentence", **model: Any) -> TeacherRecipe:
    """Return a recipe that continues from a folder; its run folder is beside it."""
    tree: dict[str, Any] = {name: {"path": name} for name in ("corpus", "tokenizer")}
    tree["run"] = {"path": start.parent / "run"}
    rows = {"batch_rows": 8, "micro_rows": 2, "row_tokens": min(64, model.get("positions") or 64)}
    train = {"steps": 4, "seed": 9, **rows}
    model = {"start": str(start), **model}
    return TeacherRecipe.model_validate(
        {**tree, "train": train, "model": model, "samples": {"pairs": pairs}}
    )


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def change_weights(folder: Path, *left_out: str, **changed: torch.Tensor) -> None:
    weights = {name: t for name, t in weights_of(folder).items() if not name.startswith(left_out)}
    save_file({**weights, **changed}, folder / WEIGHTS)


def resize_vocabulary(folder: Path, size: int) -> None:
    """Give a model another number of embeddings: the first of its own, and zeros behind them."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": size}))
    rows = {}
    for name in (EMBEDDINGS, "cls.predictions.bias"):
        old = weights_of(folder)[name][:size]
        rows[name] = torch.cat([old, old.new_zeros(size - len(old), *old.shape[1:])])
    change_weights(folder, **rows)
