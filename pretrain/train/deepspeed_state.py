"""State that DeepSpeed holds: the optimizer's and fp32 weights."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pretrain.config.run import RunRecipe
from pretrain.model import Bert
from pretrain.optim.factory import make_optimizer
from pretrain.optim.lamb import Lamb
from pretrain.optim.param_groups import decay_groups, muon_groups, split_by_stage
from pretrain.train.deepspeed_library import make_muon, safe_get_full_fp32_param

Stages = list[tuple[int, ...]]  # of each parameter group: the stages that train it

# Without this entry in the saved state, DeepSpeed cannot convert a checkpoint for another number
# of ranks (deepspeed/checkpoint/ds_to_universal.py).
UNIVERSAL_INFO = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}


def make_staged_optimizer(
    model: Bert, recipe: RunRecipe, trained: Sequence[frozenset[str]]
) -> tuple[torch.optim.Optimizer, Stages]:
    """Return the optimizer of a recipe, and the stages that train each of its groups.

    Args:
        model: on its device.
        recipe: of the run.
        trained: names of the parameters that each stage trains; empty for one stage that trains
            all.
    """
    divide = muon_groups if recipe.optim.name == "muon" else decay_groups
    groups, stages = split_by_stage(divide(model, recipe.optim), model, trained)
    if recipe.optim.name != "muon":
        return make_optimizer(groups, recipe.optim), stages
    return make_muon(groups), stages


def reset_step_counts(optimizer: torch.optim.Optimizer) -> None:
    """Set the step counts to 0: in 16 bits, ZeRO-0 takes a step to allocate the state."""
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].zero_()


def reset_untrained_steps(
    optimizer: torch.optim.Optimizer, zero: Any, stages: Stages, zero_stage: int, stage: int
) -> None:
    """Reset the step counts of parameters that no stage up to `stage` has trained.

    Their gradients were 0, and so are their moments; but Adam would take these for estimates over
    all those steps, omit the bias correction, and make its first steps 3 to 7 times too long.
    """
    for own, weights in _master_weights(optimizer, zero, stages, zero_stage):
        state = optimizer.state.get(weights, {})
        if "step" in state and own and stage < min(own):
            state["step"] *= 0


def _master_weights(
    optimizer: torch.optim.Optimizer, zero: Any, stages: Stages, zero_stage: int
) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
    """Yield the tensors that the optimizer updates, with the stages that train them."""
    if zero_stage == 3:
        # Its groups hold their weights during a step alone.
        group_of = zero.sub_group_to_group_id
        for number, weights in enumerate(zero.fp32_partitioned_groups_flat):
            yield stages[group_of[number]], weights
        return
    for group, own in zip(optimizer.param_groups, stages, strict=True):
        for weights in group["params"]:
            yield own, weights


def move_step_counts(optimizer: torch.optim.Optimizer) -> None:
    """Move AdamW's step counts to the device of their parameter.

    A converted checkpoint has them on the device of the rank that wrote it.
    """
    if not isinstance(optimizer, torch.optim.AdamW):
        return
    for parameter, values in optimizer.state.items():
        if "step" in values:
            values["step"] = values["step"].to(parameter.device)


def set_lamb_partitions(lamb: Lamb, zero: Any) -> None:
    """Give LAMB the slices of ZeRO's flat partitions that are tensors of the model.

    ZeRO-0 has no partitions; LAMB then has whole tensors.
    """
    groups = getattr(zero, "bit16_groups", None) or getattr(zero, "bf16_groups", [])
    for group, tensors in zip(lamb.param_groups, groups, strict=False):
        found = [tensor._hp_mapping for tensor in tensors]
        addresses = [None if f is None else f.get_hp_fragment_address() for f in found]
        (part,) = group["params"]
        lamb.partition(part, [None if a is None else (a.start, a.numel) for a in addresses])


def gather_fp32_weights(
    model: torch.nn.Module, optimizer: Any, zero_stage: int
) -> dict[str, torch.Tensor]:
    """Return all parameters in fp32 on the CPU, gathered from the ranks that hold parts.

    Collective under ZeRO. Rank 0 gets the weights, the others an empty dictionary.

    Args:
        model: that DeepSpeed trains.
        optimizer: of DeepSpeed, around the one that was given to it.
        zero_stage: 0 to 3.
    """
    weights = {}
    masters = _unpartitioned_masters(optimizer) if zero_stage == 0 else {}
    for name, parameter in model.named_parameters():
        full = safe_get_full_fp32_param(parameter)
        if full is None:  # ZeRO-0: whole on every rank
            full = masters.get(id(parameter), parameter).detach()
        if torch.distributed.get_rank() == 0:
            weights[name] = full.reshape(_whole_shape(parameter)).float().cpu().clone()
    return weights


def _unpartitioned_masters(optimizer: Any) -> dict[int, torch.Tensor]:
    """Return the fp32 weights behind the parameters of ZeRO-0 in bf16 or fp16, by id."""
    if not hasattr(optimizer, "fp32_groups"):
        return {}
    groups = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
    return {id(p): master for ps, ms in groups for p, master in zip(ps, ms, strict=True)}


def _whole_shape(parameter: torch.Tensor) -> torch.Size:
    """Return the shape of a parameter, also where ZeRO-3 has emptied it."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape
