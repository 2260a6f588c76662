"""The names of parameters in checkpoints of transformers, and those that they have here.

Parameters here have the names of BERT. RoBERTa, XLM-R, CamemBERT and ELECTRA differ in the prefix
and in their heads, DistilBERT also within a layer. A model without heads has no prefix.
"""

import re

from pretrain.model.hf_conversion import DISTILBERT_LAYER

DECODER = "cls.predictions.decoder.weight"
DECODER_BIAS = "cls.predictions.decoder.bias"
BIAS = "cls.predictions.bias"
WORDS = "bert.embeddings.word_embeddings.weight"
_BASE = re.compile(r"(bert|distilbert|roberta|electra)\.")
_PARTS = ("embeddings.", "encoder.", "pooler.", "transformer.layer.", "embeddings_project.")
_DISTILBERT = "transformer.layer."
_OURS = {theirs: ours for ours, theirs in DISTILBERT_LAYER.items()}
_HEADS = (
    # DistilBERT
    ("vocab_transform.", "cls.predictions.transform.dense."),
    ("vocab_layer_norm.", "cls.predictions.transform.LayerNorm."),
    ("vocab_projector.weight", DECODER),
    ("vocab_projector.bias", "cls.predictions.bias"),
    # RoBERTa, XLM-R, CamemBERT
    ("lm_head.dense.", "cls.predictions.transform.dense."),
    ("lm_head.layer_norm.", "cls.predictions.transform.LayerNorm."),
    ("lm_head.decoder.", "cls.predictions.decoder."),
    ("lm_head.bias", "cls.predictions.bias"),
)
# The first BERTs name the weight and bias of a LayerNorm so.
_OLD_NORM = {"gamma": "weight", "beta": "bias"}


def from_hf_name(name: str) -> str:
    """Return the name here of a parameter of transformers; that of an unknown head stays."""
    name = current_name(name)
    inner = _BASE.sub("", name, count=1) if _BASE.match(name) else name
    if inner != name or name.startswith(_PARTS):
        return f"bert.{_from_distilbert(inner)}"
    for theirs, ours in _HEADS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def current_name(name: str) -> str:
    """Return the name that transformers gives a parameter today."""
    module, _, leaf = name.rpartition(".")
    return f"{module}.{_OLD_NORM[leaf]}" if leaf in _OLD_NORM else name


def _from_distilbert(name: str) -> str:
    """Return the name within BERT's encoder of a parameter within DistilBERT's."""
    if not name.startswith(_DISTILBERT):
        return name
    index, rest = name.removeprefix(_DISTILBERT).split(".", 1)
    module, _, leaf = rest.rpartition(".")
    return f"encoder.layer.{index}.{_OURS.get(module, module)}.{leaf}"
