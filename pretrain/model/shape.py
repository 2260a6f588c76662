"""The shape of a BERT, and its translation into the `config.json` of transformers."""

from dataclasses import asdict, dataclass
from typing import Any

from data_prep.errors import UserError


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

    def to_transformers(self) -> dict[str, Any]:
        """Return the `config.json` with which plain transformers builds the same model."""
        head = "BertForPreTraining" if self.next_sentence else "BertForMaskedLM"
        return {
            "architectures": [head],
            "model_type": "bert",
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
        for key, expected in (
            ("model_type", "bert"),
            ("hidden_act", "gelu"),
            ("type_vocab_size", 2),
        ):
            if config.get(key, expected) != expected:
                raise UserError(
                    f"{source} has {key} {config[key]!r}; only {expected!r} is supported."
                )
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
                next_sentence="BertForPreTraining" in (config.get("architectures") or []),
                norm_epsilon=config.get("layer_norm_eps", 1e-12),
            )
        except KeyError as error:
            raise UserError(f"{source} does not give {error}, so its shape is unknown.") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a manifest."""
        return asdict(self)
