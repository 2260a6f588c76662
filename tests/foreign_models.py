"""Small models of transformers with random weights, saved as others save them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from pretrain.data.batch import Batch
from pretrain.data.dummy_batch import dummy_batch
from pretrain.model.loading import WEIGHTS

VOCABULARY, ROW = 120, 12
DECODER, BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
WORDS = "bert.embeddings.word_embeddings.weight"
Edit = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_DISTIL_SIZES = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}


def save(folder: Path, name: str, **config: Any) -> Any:
    """Save a model of transformers, with weights far from its initial ones; return it."""
    torch.manual_seed(3)
    kind = getattr(transformers, name)
    sizes = _DISTIL_SIZES if name.startswith("DistilBert") else _SIZES
    common = {"vocab_size": VOCABULARY, "max_position_embeddings": 40}
    model = kind(kind.config_class(**{**common, **sizes, **config}))
    for parameter in model.parameters():  # biases and norms too, so that mixing them up shows
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval()


def edit_weights(folder: Path, edit: Edit) -> None:
    """Replace the weights of a folder by what a function makes of them."""
    save_file(edit(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a `config.json`; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: v for key, v in config.items() if v is not None}))


def batch_of() -> Batch:
    """Return two rows of one sample each; no token is that of padding."""
    batch = dummy_batch(VOCABULARY, rows=2, row_tokens=ROW)
    return batch.map_tensors(lambda t: t.clamp(min=2) if t is batch.input_ids else t)


def inputs_of(batch: Batch, with_types: bool) -> dict[str, torch.Tensor]:
    """Return the same rows as arguments of a model of transformers."""
    rows = {"input_ids": batch.input_ids.view(-1, ROW)}
    return rows | ({"token_type_ids": batch.token_types.view(-1, ROW)} if with_types else {})
