"""Parameter groups: every parameter is in one, and only matrices decay."""

from itertools import chain

import pytest
import torch
from torch import nn

from pretrain.config.optim import OptimOptions
from pretrain.model import Bert, BertShape
from pretrain.optim.param_groups import (
    Groups,
    decay_groups,
    decays,
    is_layer_matrix,
    muon_groups,
    split_by_stage,
)

OPTIM = OptimOptions(weight_decay=0.1, beta1=0.8, beta2=0.98, epsilon=1e-8)


def names_of(model: nn.Module, groups: Groups) -> list[set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{names[id(parameter)] for parameter in group["params"]} for group in groups]


def test_biases_and_norms_have_no_decay(tiny_shape: BertShape) -> None:
    """Biases and LayerNorm have no weight decay, all other parameters do."""
    model = Bert(tiny_shape)
    groups = decay_groups(model, OPTIM)
    decayed, plain = names_of(model, groups)
    # By name, as in BERT's published code; `decays` uses the number of dimensions.
    by_name = {n for n, _ in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n}
    assert plain == by_name
    assert decayed == {name for name, _ in model.named_parameters()} - by_name
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(g["betas"] == (0.8, 0.98) and g["eps"] == 1e-8 and g["lr"] == 0 for g in groups)


def test_decay_ignores_parameter_names() -> None:
    """Weight decay follows from the number of dimensions, not from names."""
    # MegatronBert in transformers names LayerNorms `ln`.
    block = nn.ModuleDict({"ln": nn.LayerNorm(8), "dense": nn.Linear(8, 8)})
    found = {name for name, parameter in block.named_parameters() if decays(parameter)}
    assert found == {"dense.weight"}


def test_muon_group_holds_layer_matrices(tiny_shape: BertShape) -> None:
    """Muon updates the matrices of the layers alone."""
    model = Bert(tiny_shape)
    groups = muon_groups(model, OPTIM)
    matrices, decayed, plain = names_of(model, groups)
    assert len(matrices) == 6 * tiny_shape.layers  # query, key, value, output, and two of the FFN
    assert all(".encoder.layer." in name and name.endswith("weight") for name in matrices)
    assert {"bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight"} <= decayed
    assert [len(names) for names in (matrices, decayed, plain)] == [
        sum(1 for p in model.parameters() if p.use_muon),  # type: ignore[attr-defined]
        sum(1 for n, p in model.named_parameters() if decays(p) and not is_layer_matrix(n, p)),
        sum(1 for p in model.parameters() if not decays(p)),
    ]
    assert [group["use_muon"] for group in groups] == [True, False, False]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]


@pytest.mark.parametrize("grouping", [decay_groups, muon_groups])
def test_every_parameter_in_one_group(tiny_shape: BertShape, grouping: object) -> None:
    """Every parameter is in exactly one group."""
    model = Bert(tiny_shape)
    groups = grouping(model, OPTIM)  # type: ignore[operator]
    found = [id(p) for p in chain.from_iterable(group["params"] for group in groups)]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())


def test_layer_matrix_definition() -> None:
    """A layer matrix has two dimensions and is part of a layer."""
    matrix, vector = torch.zeros(4, 4), torch.zeros(4)
    assert is_layer_matrix("bert.encoder.layer.0.output.dense.weight", matrix)
    assert not is_layer_matrix("bert.encoder.layer.0.output.dense.bias", vector)
    assert not is_layer_matrix("cls.predictions.decoder.weight", matrix)


def test_split_by_stage_groups_same_stages(
    tiny_shape: BertShape,
) -> None:
    """All parameters of a split group are trained in the same stages."""
    model = Bert(tiny_shape)
    names = {name for name, _ in model.named_parameters()}
    body = {name for name in names if name.startswith("bert.e")}
    pooler = {name for name in names if ".pooler." in name}
    groups, stages = split_by_stage(
        decay_groups(model, OPTIM), model, [frozenset(body), frozenset(names - pooler)]
    )
    assert sorted(stages) == sorted([(0, 1), (1,), ()] * 2)
    expected = {(0, 1): body, (1,): names - pooler - body, (): pooler}
    for found, group, when in zip(names_of(model, groups), groups, stages, strict=True):
        assert found < expected[when] and len({decays(p) for p in group["params"]}) == 1
        assert group["weight_decay"] == (0.1 if decays(group["params"][0]) else 0.0)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_single_stage_keeps_decay_groups(tiny_shape: BertShape) -> None:
    """A single stage that trains all parameters splits no group."""
    model = Bert(tiny_shape)
    groups = decay_groups(model, OPTIM)
    for trained in ([], [frozenset(name for name, _ in model.named_parameters())]):
        same, stages = split_by_stage(groups, model, trained)
        assert names_of(model, same) == names_of(model, groups) and stages == [(0,), (0,)]
