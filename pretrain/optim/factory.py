"""The choice of an optimizer, and where each can be used."""

import torch

from data_prep.errors import UserError
from pretrain.config.optim import OptimOptions
from pretrain.optim.lamb import Lamb
from pretrain.optim.param_groups import Groups

# What DeepSpeed 0.19.8 gets right. In its other ZeRO optimizers Muon's update is clipped after it
# was made orthogonal, by a norm that is then some 200 times optim.clip_norm, and AdamW's share of
# the model with it; ZeRO-1 in bf16 and the runs without ZeRO clip the gradient first.
_MUON = {(0, "fp32"), (0, "bf16"), (1, "bf16")}


def check_optimizer(name: str, stage: int, precision: str, offloaded: bool) -> None:
    """Refuse an optimizer where it would not compute what it promises.

    Args:
        name: `optim.name`.
        stage: ZeRO stage.
        precision: `train.precision`.
        offloaded: whether optimizer state lies in the memory of the host.

    Raises:
        UserError: with the reason and a way out.
    """
    if name == "lamb" and stage == 3:
        raise UserError(
            "optim.name lamb does not work under ZeRO-3, which cuts every tensor: use ZeRO-0 to 2, "
            "as in ds_configs/zero2_bf16.json."
        )
    if name == "lamb" and offloaded:
        raise UserError(
            "optim.name lamb does not work with optimizer state on the host, where ranks have no "
            "way to add up norms: use a file of ds_configs/ without offload."
        )
    if name == "muon" and (offloaded or (stage, precision) not in _MUON):
        raise UserError(
            f"optim.name muon does not work under ZeRO-{stage} in {precision}"
            f"{' with offload' if offloaded else ''}, where DeepSpeed clips its update instead of "
            "the gradient: use ds_configs/zero1_bf16.json or zero0_fp32.json."
        )


def make_optimizer(groups: Groups, optim: OptimOptions) -> torch.optim.Optimizer:
    """Return AdamW or LAMB for the groups of a model (see `decay_groups`).

    Muon is DeepSpeed's own and made in `engine.py`.
    """
    if optim.name == "lamb":
        return Lamb(groups)
    # One kernel for all of a group instead of a dozen, on a CPU as well.
    return torch.optim.AdamW(groups, fused=True)
