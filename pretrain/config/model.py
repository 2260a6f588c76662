"""The keys of `model` and `kernels`: the shape of the model, and how it is computed."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_prep.config.loader import Options

# Layers and width of BERT's published sizes (arXiv 1810.04805; the small ones arXiv 1908.08962);
# heads are 64 wide and the feed-forward block four times the width.
_SHAPES = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
_OTHER_KEYS = {"dropout": 0.1, "norm": "post"}


class ModelOptions(Options):
    """The shape of a BERT: a published size, and any key that differs from it; or a start."""

    start: Path | None = Field(
        None,
        description="model to continue pretraining from: a run folder, an export, a BERT "
        "checkpoint of transformers or its name on the hub. Its shape is taken over; a key given "
        "here may differ in positions (interpolated, or cut) and dropout alone",
    )
    vocabulary: Literal["same", "transfer"] = Field(
        "same",
        description="start: `same` refuses one of another tokenizer than the corpus's, `transfer` "
        "carries its embeddings over by token; a new token starts as the mean of its old pieces",
    )
    shape: Literal["tiny", "mini", "small", "medium", "base", "large"] | None = Field(
        "base", description="published size that gives the next four keys where they are left out"
    )
    layers: int | None = Field(None, ge=1, description="null is that of the shape, or of the start")
    width: int | None = Field(None, ge=8, description="hidden size")
    heads: int | None = Field(None, ge=1, description="attention heads; must divide the width")
    feed_forward: int | None = Field(None, ge=8, description="width inside the feed-forward block")
    positions: int | None = Field(
        None,
        ge=16,
        description="longest input of the model, tokens; null is the longest rows', or the start's",
    )
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="on embeddings and block outputs; null is 0.1, or the start's",
    )
    norm: Literal["post", "pre"] | None = Field(
        None,
        description="LayerNorm after each block, as BERT; or before it, published as MegatronBert; "
        "null is post, or the start's",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_shape(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("shape", "base") not in (*_SHAPES, None):
            return given  # validation reports what is wrong with it
        named = {key: value for key, value in given.items() if value is not None}
        if "start" not in named:
            return _OTHER_KEYS | _keys_of(named.get("shape", "base")) | named
        return {"shape": None} | (_keys_of(named["shape"]) if "shape" in named else {}) | named

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ModelOptions":
        if self.width and self.heads and self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        return self

    @model_validator(mode="after")
    def _transfer_has_a_start(self) -> "ModelOptions":
        if self.vocabulary == "transfer" and self.start is None:
            raise ValueError("vocabulary transfer needs the start whose embeddings it carries over")
        return self


def _keys_of(shape: str) -> dict[str, int]:
    layers, width = _SHAPES[shape]
    return {"layers": layers, "width": width, "heads": width // 64, "feed_forward": 4 * width}


class KernelOptions(Options):
    """How the model is computed. Results are the same up to rounding."""

    block: Literal["auto", "reference", "compiled", "triton"] = Field(
        "auto", description="fusion within layers; auto: compiled on a GPU, reference on a CPU"
    )
    head: Literal["auto", "reference", "triton"] = Field(
        "auto", description="vocabulary and its loss; auto: triton on a GPU, reference on a CPU"
    )
    attention: Literal["auto", "varlen", "sdpa"] = Field(
        "auto", description="varlen computes no attention between samples: a GPU, bf16 or fp16"
    )
    flash: Literal["builtin", "FA3", "FA4"] = Field(
        "builtin", description="FlashAttention of varlen: torch's own, or one that is installed"
    )
    compile: bool | None = Field(
        None, description="compile the layers; null does on a GPU, except under ZeRO-3"
    )
