"""What the engine changes in DeepSpeed's step."""

import pytest
import torch
from deepspeed.runtime import bf16_optimizer, utils
from deepspeed.runtime.zero import stage_1_and_2

from pretrain.train.deepspeed_engine import _clip_without_waiting, _step_without_waiting


@pytest.mark.parametrize("largest", [0.5, 1e3])
def test_gradients_are_clipped_as_torch_clips_them(largest: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(5)), torch.nn.Parameter(torch.zeros(3, 2))]
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.arange(1.0, parameter.numel() + 1).view(parameter.shape) + index
    ours = [p.grad.clone() for p in parameters if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, largest)
    _clip_without_waiting(ours, largest, norm, None)
    for mine, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_norm_that_is_not_finite_stays_so(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bf16_optimizer, stage_1_and_2, utils):
        for name in vars(module).copy():  # whatever is replaced is put back after the test
            if name.startswith(("is_invalid", "clip_tensors", "mask_nan")):
                monkeypatch.setattr(module, name, getattr(module, name))
    _step_without_waiting()
    norm = bf16_optimizer.get_global_norm_of_tensors([torch.ones(3), torch.tensor([1.0, value])])
    assert not torch.isfinite(norm)
