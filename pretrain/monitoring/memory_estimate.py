"""How much memory a rank will need, told before its first step asks for it.

What training keeps is counted: weights, gradients, master weights and optimizer states as
DeepSpeed's ZeRO stages lay them out, and the tensors that autograd saves for the backward pass.
On top comes the work space of the worst moment. The CUDA context, NCCL and what the allocator
cannot fill are not counted; `torch.cuda.max_memory_allocated` does not count them either.

P parameters, R ranks, N tokens of a micro-batch (padding included), M of them masked, D width,
F feed-forward, V vocabulary, H heads, e bytes of an element in the forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from pretrain.config.phases import phases_of
from pretrain.config.run import RunRecipe
from pretrain.kernels.linear_cross_entropy import linear_cross_entropy
from pretrain.kernels.residual_norm import residual_norm
from pretrain.model import Bert, BertShape
from pretrain.optim.param_groups import is_layer_matrix

_FP32 = 4
_ELEMENT = {"fp32": 4, "bf16": 2, "fp16": 2}
_OFF_BY = 0.2
_CHUNK_BYTES = 256 * 2**20  # logits at a time; see BUDGET_BYTES of the Triton kernel


class Part(NamedTuple):
    """One line of the forecast."""

    name: str
    size: int  # bytes


@dataclass(frozen=True, kw_only=True)
class Zero:
    """What a DeepSpeed configuration says about memory."""

    stage: int
    ranks: int
    offload: bool  # optimizer states, master weights and their gradients lie in the host's memory
    bucket: int  # elements of a reduction bucket
    buckets: int  # as many at a time
    accumulates: bool  # a step has several micro-batches
    accumulates_fp32: bool  # gradients are added up in fp32
    adds_at_once: bool = False  # each as soon as it is there, and is forgotten then

    @classmethod
    def of(cls, config: dict[str, Any], ranks: int) -> "Zero":
        """Read it from a complete configuration; see `read_deepspeed_config`."""
        zero = config["zero_optimization"]
        offload = zero.get("offload_optimizer", {}).get("device", "none")
        return cls(
            stage=zero["stage"],
            ranks=ranks,
            offload=offload != "none",
            bucket=int(zero.get("reduce_bucket_size", 500_000_000)),
            buckets=2 if zero.get("overlap_comm") else 1,
            accumulates=config["gradient_accumulation_steps"] > 1,
            accumulates_fp32=config.get("data_types", {}).get("grad_accum_dtype") == "fp32",
            adds_at_once=config.get("bf16", {}).get("immediate_grad_update", False),
        )


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What decides the size of the saved tensors."""

    shape: BertShape
    precision: Literal["fp32", "bf16", "fp16"]
    tokens: int  # N
    masked: int  # M
    row_tokens: int
    keeps_drops: bool = True  # which elements dropout has kept; kernels draw them again
    masks_attention: bool = True  # by a row times a row, where no kernel knows samples
    chunks_logits: bool = False  # they are never whole in memory
    checkpointed_layers: int = 0  # of which only the input is stored until the backward pass

    @classmethod
    def of(cls, recipe: RunRecipe, model: Bert) -> "Activations":
        """Read it from a recipe and the way its model is computed.

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
        return _ELEMENT[self.precision]


class MemoryForecast:
    """A forecast, told before the first step and held against the peak after it."""

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        self._parts = parts
        self._total = sum(part.size for part in parts)
        self._device = device
        self._compared = False

    def table(self) -> str:
        """Return lines of name and size, the sum last."""
        rows = [*self._parts, Part("together", self._total)]
        scale, unit = (2**30, "GiB") if self._total >= 2**30 else (2**20, "MiB")
        width = max(len(part.name) for part in rows)
        lines = [f"  {part.name:{width}}  {part.size / scale:8.2f} {unit}" for part in rows]
        return "\n".join(["Memory that a rank is expected to need:", *lines])

    def figures(self) -> dict[str, float]:
        """Return what stands beside `memory/peak_gib`; a CPU's peak holds other things too."""
        if self._device.type != "cuda":
            return {}
        return {"memory/predicted_gib": self._total / 2**30}

    def compare_with_peak(self) -> None:
        """After the first steps, say so if the peak of a GPU is off by more than a fifth."""
        if self._device.type != "cuda" or self._compared:
            return
        self._compared = True
        if note := forecast_error_note(self._total, torch.cuda.max_memory_allocated(self._device)):
            print(note, flush=True)


def forecast_error_note(predicted: int, measured: int) -> str | None:
    """Return what to say when a forecast was off by more than a fifth, or None."""
    if abs(measured - predicted) <= _OFF_BY * measured:
        return None
    return (
        f"note: {predicted / 2**30:.2f} GiB were expected to be the peak of memory, and "
        f"{measured / 2**30:.2f} GiB were needed; "
        "pretrain/monitoring/memory_estimate.py has the formula."
    )


def forecast(
    recipe: RunRecipe, config: dict[str, Any], model: Bert, ranks: int, teacher_parameters: int = 0
) -> list[Part]:
    """Return what each rank of a run will need.

    Args:
        recipe: of the run.
        config: of DeepSpeed, complete.
        model: that is trained, with its backend set.
        ranks: R.
        teacher_parameters: that a rank holds of models that are asked beside it, in the same
            precision; see `Teacher.parameters`.
    """
    zero, act = Zero.of(config, ranks), Activations.of(recipe, model)
    parts = predict(model.count_parameters(), zero, act, _states_each(recipe, model))
    if teacher_parameters:
        parts.append(Part("teacher", act.element * teacher_parameters))
    return parts


def _states_each(recipe: RunRecipe, model: Bert) -> float:
    """Return the numbers that the optimizer keeps for a parameter, on average."""
    if recipe.optim.name != "muon":
        return 2.0
    # Muon keeps the momentum of its matrices, and AdamW two moments of all the rest.
    moved = sum(p.numel() for name, p in model.named_parameters() if is_layer_matrix(name, p))
    return 2.0 - moved / model.count_parameters()


def saved_by_layer(act: Activations) -> dict[str, int]:
    """Return the bytes that one layer saves for its backward pass, by what they are.

    A compiled layer may compute some of them again, so for it this is the most it keeps.
    """
    shape, size, tokens = act.shape, act.element, act.tokens
    narrow, wide = tokens * shape.width * size, tokens * shape.feed_forward * size
    statistics = 2 * _FP32 * tokens
    saved = {
        "input of the layer": narrow,
        "queries, keys and values": 3 * narrow,
        "their weights, put together": 3 * shape.width**2 * size,
        "attended values": narrow,
        "sums of their exponentials": _FP32 * tokens * shape.heads,
        "input of the first LayerNorm": narrow + statistics,
        "output of attention": narrow,
        "input and output of GELU": 2 * wide,
        "input of the second LayerNorm": narrow + statistics,
    }
    if act.keeps_drops:
        saved["kept by dropout"] = 2 * tokens * shape.width
    if act.masks_attention:
        saved["mask of attention"] = tokens * act.row_tokens * size
    return saved


def saved_by_embeddings(act: Activations) -> dict[str, int]:
    """Return the bytes that the embeddings save."""
    saved = {
        "input of the LayerNorm": act.tokens * (act.shape.width * act.element + 2 * _FP32),
        "ids": 3 * 8 * act.tokens,
    }
    if act.keeps_drops:
        saved["kept by dropout"] = act.tokens * act.shape.width
    return saved


def saved_by_heads(act: Activations) -> dict[str, int]:
    """Return the bytes that the masked-word head saves; that of the pairs is left out as tiny."""
    shape, masked = act.shape, act.masked
    narrow = masked * shape.width * act.element
    saved = {
        "last hidden states": act.tokens * shape.width * act.element,
        "transformed states": 4 * narrow + 2 * _FP32 * masked,
    }
    if not act.chunks_logits:
        saved["log-probabilities"] = _FP32 * masked * shape.vocab_size
    else:
        # One pass gives loss and gradient, in fp32.
        saved["gradients of the decoder"] = _FP32 * (shape.width + 1) * shape.vocab_size
        saved["gradients of its input"] = _FP32 * masked * shape.width
    return saved


def predict(parameters: int, zero: Zero, act: Activations, states: float = 2.0) -> list[Part]:
    """Return what a rank keeps on its device, and the work space of its worst moment.

    Args:
        parameters: P, tied ones counted once.
        zero: how they are spread.
        act: of one micro-batch; the others reuse its memory.
        states: numbers that the optimizer keeps for each parameter, 2 for AdamW and LAMB.
    """
    saved = _kept_by_layers(act)
    saved += sum(saved_by_embeddings(act).values()) + sum(saved_by_heads(act).values())
    return [
        *_states(parameters, zero, act.precision, states),
        Part("activations", saved),
        Part("work space", max(_head_space(act), _layer_space(act), _step_space(parameters, zero))),
    ]


def total(parts: Sequence[Part]) -> int:
    """Return the bytes of all parts."""
    return sum(part.size for part in parts)


def _kept_by_layers(act: Activations) -> int:
    """Return what all layers keep; of those computed again, one is whole at a time."""
    layer, inputs = sum(saved_by_layer(act).values()), saved_by_layer(act)["input of the layer"]
    kept = (act.shape.layers - act.checkpointed_layers) * layer + act.checkpointed_layers * inputs
    return kept + (layer if act.checkpointed_layers else 0)


def _states(parameters: int, zero: Zero, precision: str, states: float) -> list[Part]:
    size, share = _ELEMENT[precision], parameters // zero.ranks
    # ZeRO keeps fp32 weights of its own to update, also where the model computes in fp32.
    has_master = zero.stage > 0 or precision != "fp32"
    owned = share if zero.stage > 0 else parameters
    parts = [
        # ZeRO-3 lets go of gathered weights at 10^9 elements (ds_configs/): more than a BERT has.
        Part("weights", size * (parameters + (share if zero.stage == 3 else 0))),
        Part("gradients", _gradients(parameters, share, zero, precision)),
    ]
    if not zero.offload:
        if has_master:
            parts.append(Part("master weights in fp32", _FP32 * owned))
        parts.append(Part("optimizer states", round(states * _FP32 * owned)))
    if zero.stage > 0 and not _is_bf16_optimizer(zero, precision):
        parts.append(Part("reduction buckets", size * zero.buckets * zero.bucket))
    return parts


def _gradients(parameters: int, share: int, zero: Zero, precision: str) -> int:
    size = _ELEMENT[precision]
    if _is_bf16_optimizer(zero, precision):
        return (_FP32 + (0 if zero.adds_at_once else size)) * parameters
    if zero.stage == 0 or (zero.stage == 1 and zero.accumulates):
        return size * parameters
    return (0 if zero.offload else _FP32 if zero.accumulates_fp32 else size) * share


def _is_bf16_optimizer(zero: Zero, precision: str) -> bool:
    """Tell whether DeepSpeed 0.19 takes its BF16_Optimizer: whole gradients in fp32 as well."""
    return precision == "bf16" and zero.stage == 1 and zero.accumulates_fp32 and not zero.offload


def _head_space(act: Activations) -> int:
    """Return what the vocabulary head needs for a moment, beside what it saves."""
    if act.chunks_logits:
        return _CHUNK_BYTES
    # Logits, then two gradients of their size: of the log-probabilities and of the logits.
    return 2 * _FP32 * act.masked * act.shape.vocab_size


def _layer_space(act: Activations) -> int:
    """Return what the backward pass of a layer needs: gradients around GELU and of both inputs."""
    shape = act.shape
    return act.tokens * act.element * (2 * shape.feed_forward + 2 * shape.width)


def _step_space(parameters: int, zero: Zero) -> int:
    """Return the fp32 copy of this rank's gradients, which the update reads."""
    return 0 if zero.offload or not zero.stage else _FP32 * (parameters // zero.ranks)
