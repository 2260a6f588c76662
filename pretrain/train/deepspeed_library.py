"""What is used of DeepSpeed: the one file that imports it.

That takes ten seconds, so it is imported where a run starts its engine, after bad input is refused.
"""

import logging
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

# DeepSpeed logs its version at INFO on every rank; its warnings still come through.
os.environ.setdefault("DS_LOG_LEVEL", "warning")
# It calls collectives by names that newer versions of torch deprecate.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")

from deepspeed import initialize  # noqa: E402
from deepspeed.checkpoint import ds_to_universal  # noqa: E402
from deepspeed.ops import __compatible_ops__ as compatible_ops  # noqa: E402
from deepspeed.runtime import bf16_optimizer, utils  # noqa: E402
from deepspeed.runtime.zero import stage_1_and_2  # noqa: E402
from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS  # noqa: E402
from deepspeed.utils import safe_get_full_fp32_param  # noqa: E402

__all__ = [
    "ZERO_SUPPORTED_OPTIMIZERS",
    "bf16_optimizer",
    "compatible_ops",
    "convert_to_universal",
    "initialize",
    "make_muon",
    "safe_get_full_fp32_param",
    "stage_1_and_2",
    "utils",
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
