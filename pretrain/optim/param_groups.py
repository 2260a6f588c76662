"""Parameter groups: which parameters have weight decay, and which are updated by Muon."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter

from pretrain.config.optim import OptimOptions

Groups = list[dict[str, Any]]


def decays(parameter: torch.Tensor) -> bool:
    """Return whether weight decay applies: to matrices, not to biases and LayerNorm.

    The latter have one dimension, whatever their names (arXiv 1810.04805, appendix A.2; its
    published code goes by names).
    """
    return parameter.ndim >= 2


def is_layer_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Return whether a parameter is a matrix between hidden states, which Muon may update.

    Embeddings and heads are matrices too, but their rows are looked up or scored one by one, which
    gives no reason for an orthogonal update (kellerjordan.github.io/posts/muon).
    """
    return parameter.ndim == 2 and ".encoder.layer." in name


def decay_groups(model: torch.nn.Module, optim: OptimOptions) -> Groups:
    """Return two groups: parameters with weight decay (and LAMB's trust ratio), and without."""
    decayed = [p for p in model.parameters() if decays(p)]
    plain = [p for p in model.parameters() if not decays(p)]
    groups = [_adam_group(decayed, optim, optim.weight_decay), _adam_group(plain, optim, 0.0)]
    if optim.name == "lamb":
        return [{**group, "trust_ratio": n == 0} for n, group in enumerate(groups)]
    return groups


def muon_groups(model: torch.nn.Module, optim: OptimOptions) -> Groups:
    """Return a group of the layers' matrices for Muon, and two groups of the others for AdamW.

    Every parameter gets the attribute `use_muon` as well, which DeepSpeed reads.
    """
    matrices: list[Parameter] = []
    rest: list[Parameter] = []
    for name, parameter in model.named_parameters():
        use_muon = is_layer_matrix(name, parameter)
        parameter.use_muon = use_muon  # type: ignore[attr-defined]
        (matrices if use_muon else rest).append(parameter)
    muon = {
        "params": matrices,
        "use_muon": True,
        "lr": 0.0,
        "momentum": optim.muon_momentum,
        "weight_decay": optim.weight_decay,
    }
    decayed = [p for p in rest if decays(p)]
    plain = [p for p in rest if not decays(p)]
    adam = [_adam_group(decayed, optim, optim.weight_decay), _adam_group(plain, optim, 0.0)]
    return [muon, *({**group, "use_muon": False} for group in adam)]


def split_by_stage(
    groups: Groups, model: torch.nn.Module, trained: Sequence[frozenset[str]]
) -> tuple[Groups, list[tuple[int, ...]]]:
    """Split groups so that all parameters of a group are trained in the same stages of a run.

    Args:
        groups: parameter groups of a model.
        model: the model, for the names of its parameters.
        trained: names of the parameters that each stage trains; empty for a single stage that
            trains all.

    Returns:
        the groups, and the stages in which each is trained.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    split: Groups = []
    stages_of_all: list[tuple[int, ...]] = []
    for group in groups:
        parts: dict[tuple[int, ...], list[Parameter]] = {}
        for parameter in group["params"]:
            stages = [n for n, of_stage in enumerate(trained) if names[id(parameter)] in of_stage]
            parts.setdefault(tuple(stages) if trained else (0,), []).append(parameter)
        split += [{**group, "params": parameters} for parameters in parts.values()]
        stages_of_all += parts
    return split, stages_of_all


def _adam_group(parameters: list[Parameter], optim: OptimOptions, decay: float) -> dict[str, Any]:
    return {
        "params": parameters,
        "weight_decay": decay,
        "lr": 0.0,  # set before every step; until then an update must change nothing
        "betas": (optim.beta1, optim.beta2),
        "eps": optim.epsilon,
    }
