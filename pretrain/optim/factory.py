"""Construction of the optimizer, and the ZeRO stages and precisions where each works."""

import torch

from data_prep.errors import UserError
from pretrain.config.optim import OptimOptions
from pretrain.optim.lamb import Lamb
from pretrain.optim.param_groups import Groups

# Where DeepSpeed 0.19.8 clips the gradient before Muon makes it orthogonal. Its other ZeRO
# optimizers clip the orthogonal update, whose norm is some 200 times optim.clip_norm, together with
# AdamW's.
_MUON = {(0, "fp32"), (0, "bf16"), (1, "bf16")}


def check_optimizer(name: str, stage: int, precision: str, offloaded: bool) -> None:
    """Refuse an optimizer where DeepSpeed does not compute its update correctly.

    Args:
        name: `optim.name`.
        stage: ZeRO stage.
        precision: `train.precision`.
        offloaded: whether optimizer state is in host memory.

    Raises:
        UserError: with the reason and an alternative.
    """
    if name == "lamb" and stage == 3:
        raise UserError(
            "optim.name lamb does not work under ZeRO-3, which partitions every tensor: use ZeRO-0 "
            "to 2, as in ds_configs/zero2_bf16.json."
        )
    if name == "lamb" and offloaded:
        raise UserError(
            "optim.name lamb does not work with optimizer state on the host, where ranks cannot "
            "all-reduce norms: use a file of ds_configs/ without offload."
        )
    if name == "muon" and (offloaded or (stage, precision) not in _MUON):
        raise UserError(
            f"optim.name muon does not work under ZeRO-{stage} in {precision}"
            f"{' with offload' if offloaded else ''}, where DeepSpeed clips its update instead of "
            "the gradient: use ds_configs/zero1_bf16.json or zero0_fp32.json."
        )


def make_optimizer(groups: Groups, optim: OptimOptions) -> torch.optim.Optimizer:
    """Return AdamW or LAMB for the groups of a model (see `decay_groups`).

    Muon is DeepSpeed's own, constructed by its engine.
    """
    if optim.name == "lamb":
        return Lamb(groups)
    # Fused: one kernel per group, on a CPU too.
    return torch.optim.AdamW(groups, fused=True)
