"""The keys of `model` and `kernels`: the shape of the model, and how it is computed."""

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


class ModelOptions(Options):
    """The shape of a BERT: a published size, and any key that differs from it."""

    shape: Literal["tiny", "mini", "small", "medium", "base", "large"] = Field(
        "base", description="published size that gives the next four keys where they are left out"
    )
    layers: int = Field(12, ge=1)
    width: int = Field(768, ge=8, description="hidden size")
    heads: int = Field(12, ge=1, description="attention heads; must divide the width")
    feed_forward: int = Field(3072, ge=8, description="width inside the feed-forward block")
    positions: int | None = Field(
        None, ge=16, description="longest input of the model, tokens; null is the longest rows'"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="on embeddings and block outputs")
    norm: Literal["post", "pre"] = Field(
        "post",
        description="LayerNorm after each block, as BERT; or before it, published as MegatronBert",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_shape(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("shape", "base") not in _SHAPES:
            return given  # validation reports what is wrong with it
        layers, width = _SHAPES[given.get("shape", "base")]
        preset = {
            "layers": layers,
            "width": width,
            "heads": width // 64,
            "feed_forward": 4 * width,
        }
        return preset | given

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ModelOptions":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        return self


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
