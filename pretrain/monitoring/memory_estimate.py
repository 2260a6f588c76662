"""A forecast of the memory that a rank needs, printed before its first step.

Counted are weights, gradients, master weights and optimizer states as DeepSpeed's ZeRO stages lay
them out, the tensors that autograd saves (`activation_memory.py`), and the work space of the
largest moment. The CUDA context, NCCL and fragmentation are not counted;
`torch.cuda.max_memory_allocated` does not count them either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from pretrain.config.run import RunRecipe
from pretrain.model import Bert
from pretrain.monitoring.activation_memory import (
    ELEMENT_BYTES,
    FP32_BYTES,
    Activations,
    head_space,
    layer_space,
    saved_bytes,
)
from pretrain.optim.param_groups import is_layer_matrix

_TOLERANCE = 0.2  # share of the measured peak


class Part(NamedTuple):
    """One line of the forecast."""

    name: str
    size: int  # bytes


@dataclass(frozen=True, kw_only=True)
class Zero:
    """What decides the size of weights, gradients and optimizer states under ZeRO."""

    stage: int
    ranks: int
    offload: bool  # of optimizer states, master weights and gradients to the host
    bucket: int  # elements of a reduction bucket
    buckets: int  # at a time
    accumulates: bool  # a step has several micro-batches
    accumulates_fp32: bool  # gradients are accumulated in fp32
    adds_at_once: bool = False  # each gradient is accumulated and freed as soon as it exists

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


class MemoryForecast:
    """A forecast, printed before the first step and compared with the peak after it."""

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
        """Return the figure beside `memory/peak_gib`; the peak of a CPU includes other things."""
        if self._device.type != "cuda":
            return {}
        return {"memory/predicted_gib": self._total / 2**30}

    def compare_with_peak(self) -> None:
        """Print a note, once, if the peak of a GPU differs by more than a fifth."""
        if self._device.type != "cuda" or self._compared:
            return
        self._compared = True
        if note := forecast_error_note(self._total, torch.cuda.max_memory_allocated(self._device)):
            print(note, flush=True)


def forecast_error_note(predicted: int, measured: int) -> str | None:
    """Return a note when a forecast differs from the peak by more than a fifth, or None."""
    if abs(measured - predicted) <= _TOLERANCE * measured:
        return None
    return (
        f"note: the forecast of the memory peak was {predicted / 2**30:.2f} GiB, and "
        f"{measured / 2**30:.2f} GiB were needed; "
        "pretrain/monitoring/memory_estimate.py has the formula."
    )


def forecast(
    recipe: RunRecipe, config: dict[str, Any], model: Bert, ranks: int, teacher_parameters: int = 0
) -> list[Part]:
    """Return the memory that each rank of a run needs.

    Args:
        recipe: of the run.
        config: of DeepSpeed, complete.
        model: that is trained, with its backend set.
        ranks: of the run.
        teacher_parameters: that a rank holds of teachers, in the same precision; see
            `Teacher.parameters`.
    """
    zero, act = Zero.of(config, ranks), Activations.of(recipe, model)
    parts = predict(model.count_parameters(), zero, act, _states_each(recipe, model))
    if teacher_parameters:
        parts.append(Part("teacher", act.element * teacher_parameters))
    return parts


def _states_each(recipe: RunRecipe, model: Bert) -> float:
    """Return the optimizer states of a parameter, on average."""
    if recipe.optim.name != "muon":
        return 2.0
    # Muon keeps the momentum of its matrices, and AdamW two moments of all the rest.
    moved = sum(p.numel() for name, p in model.named_parameters() if is_layer_matrix(name, p))
    return 2.0 - moved / model.count_parameters()


def predict(parameters: int, zero: Zero, act: Activations, states: float = 2.0) -> list[Part]:
    """Return what a rank holds on its device, and the work space of its largest moment.

    Args:
        parameters: of the model, tied ones counted once.
        zero: how they are partitioned.
        act: of one micro-batch; the others reuse its memory.
        states: optimizer states of each parameter, 2 for AdamW and LAMB.
    """
    space = max(head_space(act), layer_space(act), _step_space(parameters, zero))
    return [
        *_states(parameters, zero, act.precision, states),
        Part("activations", saved_bytes(act)),
        Part("work space", space),
    ]


def total(parts: Sequence[Part]) -> int:
    """Return the bytes of all parts."""
    return sum(part.size for part in parts)


def _states(parameters: int, zero: Zero, precision: str, states: float) -> list[Part]:
    size, share = ELEMENT_BYTES[precision], parameters // zero.ranks
    # ZeRO keeps fp32 weights of its own to update, also where the model computes in fp32.
    has_master = zero.stage > 0 or precision != "fp32"
    owned = share if zero.stage > 0 else parameters
    parts = [
        # ZeRO-3 frees gathered weights at 10^9 elements (ds_configs/): more than a BERT has.
        Part("weights", size * (parameters + (share if zero.stage == 3 else 0))),
        Part("gradients", _gradients(parameters, share, zero, precision)),
    ]
    if not zero.offload:
        if has_master:
            parts.append(Part("master weights in fp32", FP32_BYTES * owned))
        parts.append(Part("optimizer states", round(states * FP32_BYTES * owned)))
    if zero.stage > 0 and not _is_bf16_optimizer(zero, precision):
        parts.append(Part("reduction buckets", size * zero.buckets * zero.bucket))
    return parts


def _gradients(parameters: int, share: int, zero: Zero, precision: str) -> int:
    size = ELEMENT_BYTES[precision]
    if _is_bf16_optimizer(zero, precision):
        return (FP32_BYTES + (0 if zero.adds_at_once else size)) * parameters
    if zero.stage == 0 or (zero.stage == 1 and zero.accumulates):
        return size * parameters
    return (0 if zero.offload else FP32_BYTES if zero.accumulates_fp32 else size) * share


def _is_bf16_optimizer(zero: Zero, precision: str) -> bool:
    """Return whether DeepSpeed 0.19 uses BF16_Optimizer: whole gradients in fp32 as well."""
    return precision == "bf16" and zero.stage == 1 and zero.accumulates_fp32 and not zero.offload


def _step_space(parameters: int, zero: Zero) -> int:
    """Return the fp32 copy of this rank's gradients, which the update reads."""
    return 0 if zero.offload or not zero.stage else FP32_BYTES * (parameters // zero.ranks)
