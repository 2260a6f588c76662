"""Encoders that only transformers computes: which families, and what their layers are like."""

from dataclasses import dataclass
from typing import Any

from pretrain.model.config import BertShape

# The attribute of the base model that holds its layers.
HF_FAMILIES = {"bert": "encoder.layer", "electra": "encoder.layer", "modernbert": "layers"}
_ROTARY = ("modernbert",)
_EPSILON = 1e-12  # of a BERT student's LayerNorms, whatever those of the teacher have


@dataclass(frozen=True, kw_only=True)
class ForeignAttention:
    """What objectives that compare attention must consider.

    Attributes:
        model_type: for messages.
        is_rotary: whether queries and keys are rotated by position before they are multiplied.
        windowed_layers: those whose tokens attend to near ones alone, counted from 1.
    """

    model_type: str
    is_rotary: bool = False
    windowed_layers: frozenset[int] = frozenset()


def describe(model_type: str, config: Any) -> tuple[BertShape, ForeignAttention]:
    """Return what students take over of a config of transformers, and its attention.

    Args:
        model_type: of `HF_FAMILIES`.
        config: an object of transformers.
    """
    kinds = getattr(config, "layer_types", None) or []
    shape = BertShape(
        vocab_size=config.vocab_size,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        feed_forward=config.intermediate_size,
        positions=config.max_position_embeddings,
        dropout=getattr(config, "hidden_dropout_prob", 0.1),
        pad_id=config.pad_token_id or 0,
        next_sentence=False,
        norm_epsilon=_EPSILON,
    )
    windowed = (n for n, kind in enumerate(kinds, start=1) if kind == "sliding_attention")
    return shape, ForeignAttention(
        model_type=model_type,
        is_rotary=model_type in _ROTARY,
        windowed_layers=frozenset(windowed),
    )
