"""The shape of a BERT."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class BertShape:
    """The hyperparameters that determine the parameters and the forward pass of a model."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    positions: int
    dropout: float
    pad_id: int
    next_sentence: bool  # whether it has a pooler and an NSP head
    norm_epsilon: float = 1e-12
    norm: Literal["post", "pre"] = "post"  # LayerNorm after each block (BERT) or before it
    token_types: bool = True  # whether it has segment embeddings; DistilBERT has none

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a manifest."""
        return asdict(self)
