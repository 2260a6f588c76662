"""Which implementations a run gets, on which device, and what its log says."""

import sys
from types import ModuleType

import pytest
import torch

from data_prep.errors import UserError
from pretrain.kernels import dispatch as choice
from pretrain.kernels.dispatch import Block, Head, Kernels, choose_kernels, resolve_block

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FUSED = "pretrain.kernels.triton"


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that triton is installed and does not interpret."""
    monkeypatch.setattr(choice, "has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "has_triton", lambda: False)


@pytest.fixture
def fused_head(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Put stand-ins where the modules of the fused head are; return their functions."""
    functions = []
    for name in ("linear_cross_entropy", "soft_cross_entropy"):
        stand_in = ModuleType(f"{FUSED}.{name}")
        functions.append(object())
        setattr(stand_in, name, functions[-1])
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
        monkeypatch.setattr(stand_in.__name__, stand_in, raising=False)
    return functions


def block_modules(kernels: Kernels) -> set[str]:
    block = (kernels.bias_gelu, kernels.residual_norm, kernels.embedding_norm)
    return {function.__module__.rpartition(".")[0] for function in block}


def test_a_cpu_takes_the_references_unless_told_otherwise() -> None:
    kernels = choose_kernels("auto", "auto", CPU)
    assert block_modules(kernels) == {"pretrain.kernels"}
    assert kernels.linear_cross_entropy.__module__ == "pretrain.kernels.linear_cross_entropy"
    assert kernels.soft_cross_entropy.__module__ == "pretrain.kernels.soft_cross_entropy"
    assert kernels.name == "block reference, head reference"


def test_a_gpu_compiles_the_block_and_fuses_the_head(
    gpu_machine: None, fused_head: list[object]
) -> None:
    kernels = choose_kernels("auto", "auto", GPU)
    assert block_modules(kernels) == {"pretrain.kernels", FUSED}
    assert kernels.embedding_norm.__module__ == f"{FUSED}.embedding_norm", "it is in no layer"
    assert [kernels.linear_cross_entropy, kernels.soft_cross_entropy] == fused_head
    assert kernels.name == "block compiled, head triton"


@pytest.mark.parametrize(
    ("block", "device"), [("reference", CPU), ("reference", GPU), ("compiled", CPU)]
)
def test_a_choice_by_name_is_kept(block: Block, device: torch.device) -> None:
    kernels = choose_kernels(block, "reference", device)
    assert block_modules(kernels) == {"pretrain.kernels"}
    assert kernels.name == f"block {block}, head reference"


def test_the_interpreter_lets_a_cpu_take_the_triton_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    kernels = choose_kernels("triton", "reference", CPU)
    assert block_modules(kernels) == {FUSED}
    assert kernels.name == "block triton, head reference"
    names = [kernels.bias_gelu.__name__, kernels.residual_norm.__name__]
    assert [*names, kernels.embedding_norm.__name__] == [
        "bias_gelu",
        "residual_norm",
        "embedding_norm",
    ]


@pytest.mark.parametrize(
    ("block", "head", "key"),
    [("triton", "auto", "kernels.block"), ("auto", "triton", "kernels.head")],
)
def test_triton_on_a_cpu_is_refused(gpu_machine: None, block: Block, head: Head, key: str) -> None:
    with pytest.raises(UserError, match=f"{key} is triton, but the device is cpu"):
        choose_kernels(block, head, CPU)


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize(
    ("block", "head", "key"),
    [("triton", "auto", "kernels.block"), ("auto", "triton", "kernels.head")],
)
def test_triton_that_is_not_installed_is_refused(
    without_triton: None, block: Block, head: Head, key: str, device: torch.device
) -> None:
    with pytest.raises(UserError, match=f"{key} is triton, but .* not installed"):
        choose_kernels(block, head, device)


def test_a_gpu_without_triton_says_why_nothing_is_fused(without_triton: None) -> None:
    kernels = choose_kernels("auto", "auto", GPU)
    assert kernels.name == "block reference, head reference, as triton is not installed"
    assert resolve_block("compiled", GPU) == "compiled"  # what torch then says is its own
