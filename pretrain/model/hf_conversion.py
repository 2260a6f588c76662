"""Conversion to Hugging Face: `config.json` and the names of parameters; the other way is foreign/.

Parameters here have the names of transformers' BERT. DistilBERT, a BERT without segment embeddings
and pooler, has other names in transformers; they are used on export alone. In training and in
checkpoints such a student has the names of BERT.
"""

from typing import Any

from pretrain.model.config import BertShape

_FAMILIES = {"post": ("bert", "Bert"), "pre": ("megatron-bert", "MegatronBert")}
# Names of BERT to those of DistilBERT: prefixes in the head, modules in a layer.
_HEAD = {
    "cls.predictions.transform.dense": "vocab_transform",
    "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
    "cls.predictions.bias": "vocab_projector.bias",
}
DISTILBERT_LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
HEADS = "cls."  # beginning of the names of the heads' parameters
_LAYERS = "bert.encoder.layer."
# Keys of DistilBERT's `config.json` to those of BERT's.
DISTILBERT_CONFIG = {
    "n_layers": "num_hidden_layers",
    "dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "activation": "hidden_act",
}


def to_hf_config(shape: BertShape, has_heads: bool = True) -> dict[str, Any]:
    """Return the `config.json` with which plain transformers builds the same model.

    Without heads it is that of an encoder alone.
    """
    if not shape.token_types:
        return _distilbert_config(shape, "ForMaskedLM" if has_heads else "Model")
    model_type, family = _FAMILIES[shape.norm]
    with_heads = "ForPreTraining" if shape.next_sentence else "ForMaskedLM"
    return {
        "architectures": [family + (with_heads if has_heads else "Model")],
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
        "tie_word_embeddings": shape.tied_decoder,
    }


def to_hf_name(name: str, shape: BertShape) -> str:
    """Return the name of a parameter in the model that transformers builds from the same shape."""
    if shape.token_types:
        return name
    for ours, theirs in _HEAD.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    if not name.startswith(_LAYERS):
        return "distil" + name
    index, rest = name.removeprefix(_LAYERS).split(".", 1)
    module, _, leaf = rest.rpartition(".")
    return f"distilbert.transformer.layer.{index}.{DISTILBERT_LAYER[module]}.{leaf}"


def _distilbert_config(shape: BertShape, suffix: str) -> dict[str, Any]:
    return {
        "architectures": [f"DistilBert{suffix}"],
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
