"""The shape of a BERT, and its translation into the `config.json` of transformers."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from data_prep.errors import UserError
from pretrain.model import hf_conversion as distilbert

# Where the LayerNorms stand decides which model of transformers ours is, and whether it has
# embeddings of the two segments.
_MODEL_TYPES: dict[str, Literal["post", "pre"]] = {
    "bert": "post",
    "megatron-bert": "pre",
    "distilbert": "post",
}
_FAMILIES = {"post": ("bert", "Bert"), "pre": ("megatron-bert", "MegatronBert")}


@dataclass(frozen=True, kw_only=True)
class BertShape:
    """Everything that fixes the parameters and the forward pass of a model."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    positions: int
    dropout: float
    pad_id: int
    next_sentence: bool  # whether it has a pooler and a next-sentence head
    norm_epsilon: float = 1e-12
    norm: Literal["post", "pre"] = "post"  # LayerNorm after each block as in BERT, or before it
    token_types: bool = True  # whether it tells two segments apart; DistilBERT does not

    def to_transformers(self) -> dict[str, Any]:
        """Return the `config.json` with which plain transformers builds the same model."""
        if not self.token_types:
            return distilbert.config_of(self)
        model_type, family = _FAMILIES[self.norm]
        return {
            "architectures": [f"{family}For{'PreTraining' if self.next_sentence else 'MaskedLM'}"],
            "model_type": model_type,
            "vocab_size": self.vocab_size,
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.positions,
            "hidden_dropout_prob": self.dropout,
            # Ours has none while pre-training; fine-tuning usually wants BERT's own 0.1.
            "attention_probs_dropout_prob": self.dropout,
            "hidden_act": "gelu",
            "type_vocab_size": 2,
            "layer_norm_eps": self.norm_epsilon,
            "initializer_range": 0.02,
            "pad_token_id": self.pad_id,
            "tie_word_embeddings": True,
        }

    @classmethod
    def from_transformers(cls, config: dict[str, Any], source: str) -> "BertShape":
        """Read a `config.json`; `source` names it in messages.

        Raises:
            UserError: when it is not a BERT that this project computes exactly.
        """
        if config.get("model_type") == "distilbert":
            config = distilbert.as_bert(config)
        for key, supported in (
            ("model_type", tuple(_MODEL_TYPES)),
            ("hidden_act", ("gelu",)),
            ("type_vocab_size", (2,)),
        ):
            if config.get(key, supported[0]) not in supported:
                names = " or ".join(repr(value) for value in supported)
                raise UserError(f"{source} has {key} {config[key]!r}; only {names} is supported.")
        try:
            return cls(
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
            raise UserError(f"{source} does not give {error}, so its shape is unknown.") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a manifest."""
        return asdict(self)
