"""DeepSpeed, as far as it is used: the one file that imports it and replaces what it must.

That takes ten seconds, so it is imported where a run starts its engine, after bad input is refused.
DeepSpeed has no option for what is replaced; `test_deepspeed_library.py` pins its sources.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch

from pretrain.optim import norms

# DeepSpeed logs its version at INFO on every rank; its warnings still come through.
os.environ.setdefault("DS_LOG_LEVEL", "warning")
# It calls collectives by names that newer versions of torch deprecate.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")

from deepspeed import initialize  # noqa: E402
from deepspeed.checkpoint import ds_to_universal  # noqa: E402
from deepspeed.ops import __compatible_ops__ as compatible_ops  # noqa: E402
from deepspeed.runtime import bf16_optimizer, engine  # noqa: E402
from deepspeed.runtime.zero import stage_1_and_2  # noqa: E402
from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS  # noqa: E402
from deepspeed.utils import safe_get_full_fp32_param  # noqa: E402

__all__ = [
    "PATCHES",
    "Patch",
    "allow_under_zero",
    "convert_to_universal",
    "disable_shm_collective",
    "exact_norms",
    "initialize",
    "make_muon",
    "safe_get_full_fp32_param",
    "step_without_synchronisation",
]

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


def make_muon(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return Muon for the groups that `use_muon`, and AdamW for the others."""
    # Imported late, as DeepSpeed does: the module compiles functions on import.
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(groups, torch.optim.AdamW, {"fused": True})
    return optimizer


def convert_to_universal(source: Path, target: Path) -> None:
    """Convert a checkpoint to DeepSpeed's universal form, which any number of ranks can load."""
    ds_to_universal.main(
        SimpleNamespace(
            input_folder=str(source),
            output_folder=str(target),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=False,
        )
    )


class Patch(NamedTuple):
    """A function that a module of DeepSpeed calls by a global name, and its replacement."""

    module: ModuleType
    name: str
    replacement: Callable[..., Any]


def disable_shm_collective() -> None:
    """Keep DeepSpeed from compiling a shared-memory collective on a CPU.

    Only its inference calls it, and its buffers stay in /dev/shm after each run (seen: 16 GB after
    a day of runs).
    """
    compatible_ops["deepspeed_shm_comm"] = False


def allow_under_zero(optimizer: type[torch.optim.Optimizer]) -> None:
    """Add a class to the optimizers that DeepSpeed accepts under ZeRO-1 and 2.

    LAMB is tested there, see tests/stories/test_optimizers.py.
    """
    if optimizer not in ZERO_SUPPORTED_OPTIMIZERS:
        ZERO_SUPPORTED_OPTIMIZERS.append(optimizer)


def step_without_synchronisation() -> None:
    """Remove the device-to-host synchronisations of DeepSpeed's optimizer step.

    In ZeRO-1 and 2 it skips a step whose gradient is not finite, and reads the norm on the host for
    that and for clipping. Only fp16 needs skipping, to find its loss scale. In bf16 and fp32 such a
    gradient is an error that skipping would hide: here it reaches the weights, the next loss is
    not finite, and the run stops with what to do (see `loop.py`); checkpoints refuse such weights.
    ZeRO-0 in bf16, ZeRO-3 and offload still synchronise.

    DeepSpeed also replaces a norm that is NaN or infinite by -1, copied from the host: that is left
    out, so that `Engine.device_grad_norm` shows it.
    """
    _apply(_SYNCHRONISING)


def exact_norms() -> None:
    """Replace the gradient norms that DeepSpeed sums in fp32 on a CPU: see `optim/norms.py`.

    These are those of ZeRO-0, and of ZeRO-1 in bf16 with gradients in fp32. All others it sums in
    fp64.
    """
    _apply(_NORMS)


def _apply(patches: Iterable[Patch]) -> None:
    for patch in patches:
        if not hasattr(patch.module, patch.name):
            raise RuntimeError(
                f"{patch.module.__name__} has no {patch.name} to replace: install the version of "
                "DeepSpeed that pyproject.toml names."
            )
        setattr(patch.module, patch.name, patch.replacement)


def _never_invalid(norm: Any) -> bool:
    return False


def _keep_nan_and_infinity(
    input: torch.Tensor, device: torch.device | None = None, val: float = -1.0
) -> None:
    return None


def clip_by_global_norm(
    input_tensors: list[torch.Tensor],
    max_norm: float = 1.0,
    global_norm: torch.Tensor | None = None,
    mpu: None = None,
    eps: float = 1e-6,
) -> torch.Tensor:
    """Scale gradients on the device so that their global norm is at most `max_norm`."""
    assert global_norm is not None  # BF16_Optimizer.step always gives it
    torch._foreach_mul_(input_tensors, (max_norm / (global_norm + eps)).clamp(max=1.0))
    return global_norm


def clip_gradients(
    parameters: Iterable[torch.Tensor], max_norm: float, norm_type: float = 2, mpu: None = None
) -> torch.Tensor:
    """Scale the gradients of parameters so that their global norm is at most `max_norm`."""
    assert norm_type == 2 and mpu is None
    gradients = [p.grad for p in parameters if p.grad is not None]
    return clip_by_global_norm(gradients, max_norm, norms.global_norm(gradients))


def norm_of_tensors(
    input_tensors: Iterable[torch.Tensor],
    norm_type: float = 2,
    mpu: None = None,
    moe_ep_group: None = None,
) -> torch.Tensor:
    """Return the norm of all tensors as one vector, as it is, also where it is not finite."""
    assert norm_type == 2 and mpu is None and moe_ep_group is None
    return norms.global_norm(list(input_tensors))


_SYNCHRONISING = (
    Patch(bf16_optimizer, "is_invalid_grad_norm", _never_invalid),
    Patch(stage_1_and_2, "is_invalid_grad_norm", _never_invalid),
    Patch(stage_1_and_2, "mask_nan_or_inf_with_val_inplace", _keep_nan_and_infinity),
    Patch(bf16_optimizer, "clip_tensors_by_global_norm", clip_by_global_norm),
)
_NORMS = (
    Patch(bf16_optimizer, "get_global_norm_of_tensors", norm_of_tensors),
    Patch(engine, "clip_grad_norm_", clip_gradients),
)
PATCHES = (*_SYNCHRONISING, *_NORMS)
