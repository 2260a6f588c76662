"""DistilBERT in transformers: a BERT without segments and pooler, under names of its own.

Only what is published bears these names; while it trains, and in our checkpoints, such a student
is named like any other BERT.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.model.config import BertShape

# Ours and theirs, as the ends of a name.
_HEAD = {
    "cls.predictions.transform.dense": "vocab_transform",
    "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
    "cls.predictions.bias": "vocab_projector.bias",
}
_LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
_CONFIG = {
    "n_layers": "num_hidden_layers",
    "dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "activation": "hidden_act",
}


def name_of(ours: str) -> str:
    """Return what a parameter of ours is called in a DistilBertForMaskedLM."""
    return _renamed(ours, "bert.encoder.layer.", "distilbert.transformer.layer.", forward=True)


def our_name(theirs: str) -> str:
    """Return what a parameter of a DistilBertForMaskedLM is called in a BERT."""
    return _renamed(theirs, "distilbert.transformer.layer.", "bert.encoder.layer.", forward=False)


def config_of(shape: "BertShape") -> dict[str, Any]:
    """Return the `config.json` of a shape without segments."""
    return {
        "architectures": ["DistilBertForMaskedLM"],
        "model_type": "distilbert",
        "vocab_size": shape.vocab_size,
        "n_layers": shape.layers,
        "dim": shape.width,
        "n_heads": shape.heads,
        "hidden_dim": shape.feed_forward,
        "max_position_embeddings": shape.positions,
        "sinusoidal_pos_embds": False,
        "dropout": shape.dropout,
        "attention_dropout": shape.dropout,
        "activation": "gelu",
        "initializer_range": 0.02,
        "pad_token_id": shape.pad_id,
        "tie_weights_": True,
        "tie_word_embeddings": True,
    }


def as_bert(config: dict[str, Any]) -> dict[str, Any]:
    """Return a DistilBERT's `config.json` in the words of a BERT's; its norms have 1e-12."""
    return {_CONFIG.get(key, key): value for key, value in config.items()}


def _renamed(name: str, layers: str, other_layers: str, forward: bool) -> str:
    pairs = [(ours, theirs) if forward else (theirs, ours) for ours, theirs in _HEAD.items()]
    for found, wanted in pairs:
        if name.startswith(found):
            return wanted + name.removeprefix(found)
    if not name.startswith(layers):
        return re.sub(r"^(distil)?bert\.", "distilbert." if forward else "bert.", name)
    number, rest = name.removeprefix(layers).split(".", 1)
    module, _, leaf = rest.rpartition(".")
    names = _LAYER if forward else {theirs: ours for ours, theirs in _LAYER.items()}
    return f"{other_layers}{number}.{names[module]}.{leaf}"
