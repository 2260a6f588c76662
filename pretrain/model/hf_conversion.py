"""Conversion to and from Hugging Face: `config.json` and the names of parameters.

Parameters here have the names of transformers' BERT. DistilBERT, a BERT without segment embeddings
and pooler, has other names in transformers; they are used on export alone. In training and in
checkpoints such a student has the names of BERT.
"""

import re
from typing import Any, Literal

from data_prep.errors import UserError
from pretrain.model.config import BertShape

# The position of the LayerNorms in each model of transformers that is supported.
_MODEL_TYPES: dict[str, Literal["post", "pre"]] = {
    "bert": "post",
    "megatron-bert": "pre",
    "distilbert": "post",
}
_FAMILIES = {"post": ("bert", "Bert"), "pre": ("megatron-bert", "MegatronBert")}
# Names of BERT to those of DistilBERT: prefixes in the head, modules in a layer.
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
# Keys of DistilBERT's `config.json` to those of BERT's.
_CONFIG = {
    "n_layers": "num_hidden_layers",
    "dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "activation": "hidden_act",
}


def to_hf_config(shape: BertShape) -> dict[str, Any]:
    """Return the `config.json` with which plain transformers builds the same model."""
    if not shape.token_types:
        return _distilbert_config(shape)
    model_type, family = _FAMILIES[shape.norm]
    return {
        "architectures": [f"{family}For{'PreTraining' if shape.next_sentence else 'MaskedLM'}"],
        "model_type": model_type,
        "vocab_size": shape.vocab_size,
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.positions,
        "hidden_dropout_prob": shape.dropout,
        # Pre-training here has no attention dropout; fine-tuning usually uses that of BERT, 0.1.
        "attention_probs_dropout_prob": shape.dropout,
        "hidden_act": "gelu",
        "type_vocab_size": 2,
        "layer_norm_eps": shape.norm_epsilon,
        "initializer_range": 0.02,
        "pad_token_id": shape.pad_id,
        "tie_word_embeddings": True,
    }


def from_hf_config(config: dict[str, Any], source: str) -> BertShape:
    """Return the shape of a `config.json`; `source` names the file in errors.

    Raises:
        UserError: when this project cannot compute the model exactly.
    """
    if config.get("model_type") == "distilbert":
        config = _as_bert_config(config)
    for key, supported in (
        ("model_type", tuple(_MODEL_TYPES)),
        ("hidden_act", ("gelu",)),
        ("type_vocab_size", (2,)),
    ):
        if config.get(key, supported[0]) not in supported:
            names = " or ".join(repr(value) for value in supported)
            raise UserError(f"{source} has {key} {config[key]!r}; only {names} is supported.")
    try:
        return BertShape(
            vocab_size=config["vocab_size"],
            layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            heads=config["num_attention_heads"],
            feed_forward=config["intermediate_size"],
            positions=config["max_position_embeddings"],
            dropout=config.get("hidden_dropout_prob", 0.1),
            pad_id=config.get("pad_token_id") or 0,
            next_sentence=any(
                name.endswith("ForPreTraining") for name in config.get("architectures") or []
            ),
            norm_epsilon=config.get("layer_norm_eps", 1e-12),
            norm=_MODEL_TYPES[config.get("model_type", "bert")],
            token_types=config.get("model_type") != "distilbert",
        )
    except KeyError as error:
        raise UserError(
            f"{source} has no {error}, so the shape of the model is unknown."
        ) from error


def to_hf_name(name: str, shape: BertShape) -> str:
    """Return the name of a parameter in the model that transformers builds from the same shape."""
    if shape.token_types:
        return name
    return _renamed(name, "bert.encoder.layer.", "distilbert.transformer.layer.", forward=True)


def from_hf_name(name: str) -> str:
    """Return the name here of a parameter of transformers.

    A BERT without heads has no prefix `bert.`; the first BERTs name the weight and bias of a
    LayerNorm gamma and beta.
    """
    if name.startswith(("distilbert.", "vocab_")):
        return _from_distilbert(name)
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _from_distilbert(name: str) -> str:
    return _renamed(name, "distilbert.transformer.layer.", "bert.encoder.layer.", forward=False)


def _distilbert_config(shape: BertShape) -> dict[str, Any]:
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


def _as_bert_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a DistilBERT's `config.json` with the keys of a BERT's."""
    return {_CONFIG.get(key, key): value for key, value in config.items()}


def _renamed(name: str, layers: str, other_layers: str, forward: bool) -> str:
    pairs = [(ours, theirs) if forward else (theirs, ours) for ours, theirs in _HEAD.items()]
    for old, new in pairs:
        if name.startswith(old):
            return new + name.removeprefix(old)
    if not name.startswith(layers):
        return re.sub(r"^(distil)?bert\.", "distilbert." if forward else "bert.", name)
    index, rest = name.removeprefix(layers).split(".", 1)
    module, _, leaf = rest.rpartition(".")
    names = _LAYER if forward else {theirs: ours for ours, theirs in _LAYER.items()}
    return f"{other_layers}{index}.{names[module]}.{leaf}"
