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
    next_sentence: bool  # whether it has an NSP head, and the pooler below it
    norm_epsilon: float = 1e-12
    norm: Literal["post", "pre"] = "post"  # LayerNorm after each block (BERT) or before it
    token_types: bool = True  # whether it has segment embeddings; DistilBERT has none
    tied_decoder: bool = True  # whether the MLM head's decoder is the word embeddings
    pooler: bool = False  # whether it has a pooler although no NSP head reads it

    @property
    def has_pooler(self) -> bool:
        """Whether `AutoModel` finds a pooler in its weights."""
        return self.next_sentence or self.pooler

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a manifest."""
        return asdict(self)
