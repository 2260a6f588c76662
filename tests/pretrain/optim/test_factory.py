"""Construction of optimizers, and refusal where DeepSpeed cannot compute its update."""

import pytest
import torch

from data_prep.errors import UserError
from pretrain.config.optim import OptimOptions
from pretrain.model import Bert, BertShape
from pretrain.optim.factory import check_optimizer, make_optimizer
from pretrain.optim.lamb import Lamb
from pretrain.optim.param_groups import decay_groups


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("offloaded", [False, True])
def test_adamw_always_allowed(stage: int, precision: str, offloaded: bool) -> None:
    """AdamW is allowed under every ZeRO stage, precision and offload."""
    check_optimizer("adamw", stage, precision, offloaded)


@pytest.mark.parametrize(("stage", "offloaded", "message"), [
    (3, False, "lamb does not work under ZeRO-3"),
    (1, True, "lamb does not work with optimizer state on the host"),
    (2, True, "lamb does not work with optimizer state on the host"),
])  # fmt: skip
def test_lamb_refused_without_whole_norms(stage: int, offloaded: bool, message: str) -> None:
    """LAMB is refused where the norms of whole tensors cannot be computed."""
    with pytest.raises(UserError, match=message):
        check_optimizer("lamb", stage, "bf16", offloaded)


def test_lamb_allowed_under_zero_0_to_2() -> None:
    """LAMB is allowed under ZeRO-0 to 2 in every precision."""
    for stage in range(3):
        for precision in ("fp32", "bf16", "fp16"):
            check_optimizer("lamb", stage, precision, offloaded=False)


def test_muon_requires_gradient_clipping_first() -> None:
    """Muon is allowed only where DeepSpeed clips the gradient before orthogonalisation."""
    for stage in range(4):
        for precision in ("fp32", "bf16", "fp16"):
            if (stage, precision) in {(0, "fp32"), (0, "bf16"), (1, "bf16")}:
                check_optimizer("muon", stage, precision, offloaded=False)
                continue
            with pytest.raises(UserError, match=f"muon does not work under ZeRO-{stage} in "):
                check_optimizer("muon", stage, precision, offloaded=False)
    with pytest.raises(UserError, match="in bf16 with offload"):
        check_optimizer("muon", 1, "bf16", offloaded=True)


def made(model: Bert, optim: OptimOptions) -> torch.optim.Optimizer:
    return make_optimizer(decay_groups(model, optim), optim)


def test_lamb_trust_ratio_follows_decay(tiny_shape: BertShape) -> None:
    """Parameters with weight decay have a trust ratio under LAMB, the others none."""
    optimizer = made(Bert(tiny_shape), OptimOptions(name="lamb", weight_decay=0.0))
    assert isinstance(optimizer, Lamb)
    decayed, plain = optimizer.param_groups
    assert decayed["trust_ratio"] and not plain["trust_ratio"]
    assert all(p.ndim >= 2 for p in decayed["params"]) and all(p.ndim == 1 for p in plain["params"])


def test_adamw_uses_recipe_hyperparameters(tiny_shape: BertShape) -> None:
    """AdamW is torch's own, with the betas, epsilon and weight decay of the recipe."""
    optim = OptimOptions(weight_decay=0.1, beta1=0.8, beta2=0.98, epsilon=1e-8)
    optimizer = made(Bert(tiny_shape), optim)
    assert isinstance(optimizer, torch.optim.AdamW)
    for group, decay in zip(optimizer.param_groups, (0.1, 0.0), strict=True):
        assert (group["betas"], group["eps"]) == ((0.8, 0.98), 1e-8)
        assert (group["weight_decay"], group["lr"]) == (decay, 0.0)
