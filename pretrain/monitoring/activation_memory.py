"""The bytes of the tensors that autograd saves for the backward pass of a BERT.

N tokens of a micro-batch (padding included), M of them masked, D width, F feed-forward,
V vocabulary, H heads, e bytes of an element in the forward pass.
"""

from dataclasses import dataclass
from typing import Literal

from pretrain.config.phases import phases_of
from pretrain.config.run import RunRecipe
from pretrain.kernels.linear_cross_entropy import linear_cross_entropy
from pretrain.kernels.residual_norm import residual_norm
from pretrain.model import Bert, BertShape

FP32_BYTES = 4
ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_LOGIT_CHUNK_BYTES = 256 * 2**20  # see BUDGET_BYTES of the Triton kernel


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What decides the size of the saved tensors."""

    shape: BertShape
    precision: Literal["fp32", "bf16", "fp16"]
    tokens: int  # N
    masked: int  # M
    row_tokens: int
    keeps_drops: bool = True  # whether dropout masks are saved; kernels draw them a second time
    masks_attention: bool = True  # by a matrix of rows, where the kernel has no cu_seqlens
    chunks_logits: bool = False  # whether logits are never whole in memory
    checkpointed_layers: int = 0  # of which only the input is stored until the backward pass

    @classmethod
    def of(cls, recipe: RunRecipe, model: Bert) -> "Activations":
        """Read them from a recipe and the backend of its model.

        The phase with the largest micro-batch counts.
        """
        train, mask, backend = recipe.train, recipe.mask, model.backend
        phase = max(phases_of(train), key=lambda phase: phase.micro_rows * phase.row_tokens)
        tokens = phase.micro_rows * phase.row_tokens * (2 if mask.bidirectional else 1)
        plain = backend.kernels.residual_norm is residual_norm
        return cls(
            shape=model.shape,
            precision=train.precision,
            tokens=tokens,
            masked=round(tokens * max(mask.rate, mask.rate_end or 0.0)),
            row_tokens=phase.row_tokens,
            keeps_drops=plain and not backend.compiled and model.shape.dropout > 0,
            masks_attention=backend.attention == "sdpa",
            chunks_logits=backend.kernels.linear_cross_entropy is not linear_cross_entropy,
            checkpointed_layers=backend.checkpointed_layers,
        )

    @property
    def element(self) -> int:
        """Bytes of an element."""
        return ELEMENT_BYTES[self.precision]


def saved_bytes(act: Activations) -> int:
    """Return the bytes that layers, embeddings and heads save together."""
    saved = _saved_by_all_layers(act)
    return saved + sum(saved_by_embeddings(act).values()) + sum(saved_by_heads(act).values())


def saved_by_layer(act: Activations) -> dict[str, int]:
    """Return the bytes that one layer saves for its backward pass, by what they are.

    A compiled layer may compute some of them a second time, so for it this is an upper bound.
    """
    shape, size, tokens = act.shape, act.element, act.tokens
    narrow, wide = tokens * shape.width * size, tokens * shape.feed_forward * size
    statistics = 2 * FP32_BYTES * tokens
    saved = {
        "input of the layer": narrow,
        "queries, keys and values": 3 * narrow,
        "their weights, concatenated": 3 * shape.width**2 * size,
        "attention output before its projection": narrow,
        "log-sum-exp of the attention scores": FP32_BYTES * tokens * shape.heads,
        "input of the first LayerNorm": narrow + statistics,
        "output of attention": narrow,
        "input and output of GELU": 2 * wide,
        "input of the second LayerNorm": narrow + statistics,
    }
    if act.keeps_drops:
        saved["dropout masks"] = 2 * tokens * shape.width
    if act.masks_attention:
        saved["attention mask"] = tokens * act.row_tokens * size
    return saved


def saved_by_embeddings(act: Activations) -> dict[str, int]:
    """Return the bytes that the embeddings save."""
    saved = {
        "input of the LayerNorm": act.tokens * (act.shape.width * act.element + 2 * FP32_BYTES),
        "ids": 3 * 8 * act.tokens,
    }
    if act.keeps_drops:
        saved["dropout mask"] = act.tokens * act.shape.width
    return saved


def saved_by_heads(act: Activations) -> dict[str, int]:
    """Return the bytes that the MLM head saves; those of the NSP head are negligible."""
    shape, masked = act.shape, act.masked
    narrow = masked * shape.width * act.element
    saved = {
        "last hidden states": act.tokens * shape.width * act.element,
        "transformed states": 4 * narrow + 2 * FP32_BYTES * masked,
    }
    if not act.chunks_logits:
        saved["log-probabilities"] = FP32_BYTES * masked * shape.vocab_size
    else:
        # One pass gives loss and gradient, in fp32.
        saved["gradients of the decoder"] = FP32_BYTES * (shape.width + 1) * shape.vocab_size
        saved["gradients of its input"] = FP32_BYTES * masked * shape.width
    return saved


def head_space(act: Activations) -> int:
    """Return what the MLM head allocates for a moment, beside what it saves."""
    if act.chunks_logits:
        return _LOGIT_CHUNK_BYTES
    # Logits, then two gradients of their size: of the log-probabilities and of the logits.
    return 2 * FP32_BYTES * act.masked * act.shape.vocab_size


def layer_space(act: Activations) -> int:
    """Return what the backward pass of a layer needs: gradients around GELU and of both inputs."""
    shape = act.shape
    return act.tokens * act.element * (2 * shape.feed_forward + 2 * shape.width)


def _saved_by_all_layers(act: Activations) -> int:
    """Return what all layers save; of the checkpointed ones, one is whole at a time."""
    layer, inputs = sum(saved_by_layer(act).values()), saved_by_layer(act)["input of the layer"]
    checkpointed = act.checkpointed_layers
    saved = (act.shape.layers - checkpointed) * layer + checkpointed * inputs
    return saved + (layer if checkpointed else 0)
