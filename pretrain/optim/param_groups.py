"""Parameter groups: which parameters decay, and which are matrices of the layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter

from pretrain.config.optim import OptimOptions

Groups = list[dict[str, Any]]


def decays(parameter: torch.Tensor) -> bool:
    """Tell whether weight decay applies: to matrices, not to biases and LayerNorm.

    Those are the parameters of one dimension, whatever a model calls them (arXiv 1810.04805,
    appendix A.2 names them by what they are; its published code by their names).
    """
    return parameter.ndim >= 2


def is_layer_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Tell whether a parameter is a matrix between hidden states, which Muon may move.

    Embeddings and heads are matrices too, but their rows are looked up or scored one by one, so
    that there is no reason to make their update orthogonal (kellerjordan.github.io/posts/muon).
    """
    return parameter.ndim == 2 and ".encoder.layer." in name


def decay_groups(model: torch.nn.Module, optim: OptimOptions) -> Groups:
    """Return two groups: parameters that decay and, for LAMB, have a trust ratio; the others."""
    decayed = [p for p in model.parameters() if decays(p)]
    plain = [p for p in model.parameters() if not decays(p)]
    groups = [_adam_group(decayed, optim, optim.weight_decay), _adam_group(plain, optim, 0.0)]
    if optim.name == "lamb":
        return [{**group, "trust_ratio": n == 0} for n, group in enumerate(groups)]
    return groups


def muon_groups(model: torch.nn.Module, optim: OptimOptions) -> Groups:
    """Return the layers' matrices for Muon, and the two groups of the rest for AdamW.

    The parameters are marked as well: DeepSpeed asks each of them.
    """
    matrices: list[Parameter] = []
    rest: list[Parameter] = []
    for name, parameter in model.named_parameters():
        chosen = is_layer_matrix(name, parameter)
        parameter.use_muon = chosen  # type: ignore[attr-defined]
        (matrices if chosen else rest).append(parameter)
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
    """Divide groups until all parameters of each are trained in the same stages of a run.

    Args:
        groups: of the parameters of a model.
        model: that names them.
        trained: names of the parameters that each stage trains; empty for one stage that trains
            all.

    Returns:
        the groups, and the stages of each.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    divided: Groups = []
    stages_of_all: list[tuple[int, ...]] = []
    for group in groups:
        parts: dict[tuple[int, ...], list[Parameter]] = {}
        for parameter in group["params"]:
            stages = [n for n, reached in enumerate(trained) if names[id(parameter)] in reached]
            parts.setdefault(tuple(stages) if trained else (0,), []).append(parameter)
        divided += [{**group, "params": parameters} for parameters in parts.values()]
        stages_of_all += parts
    return divided, stages_of_all


def _adam_group(parameters: list[Parameter], optim: OptimOptions, decay: float) -> dict[str, Any]:
    return {
        "params": parameters,
        "weight_decay": decay,
        "lr": 0.0,  # every step is given its own; a step of DeepSpeed's must move nothing
        "betas": (optim.beta1, optim.beta2),
        "eps": optim.epsilon,
    }
