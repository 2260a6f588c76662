"""The implementations that a run gets on each device, and their name for the log."""

import sys
from types import ModuleType

import pytest
import torch

from data_prep.errors import UserError
from pretrain.kernels import dispatch
from pretrain.kernels.dispatch import Block, Head, Kernels, choose_kernels, resolve_block

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FUSED = "pretrain.kernels.triton"


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an installed triton that does not interpret."""
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)


@pytest.fixture
def fused_head(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Replace the modules of the fused head by stand-ins; return their functions."""
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


def test_cpu_defaults_to_references() -> None:
    """On a CPU `auto` is the reference of every operation."""
    kernels = choose_kernels("auto", "auto", CPU)
    assert block_modules(kernels) == {"pretrain.kernels"}
    assert kernels.linear_cross_entropy.__module__ == "pretrain.kernels.linear_cross_entropy"
    assert kernels.soft_cross_entropy.__module__ == "pretrain.kernels.soft_cross_entropy"
    assert kernels.name == "block reference, head reference"


def test_gpu_defaults_to_compiled_block_and_triton_head(
    gpu_machine: None, fused_head: list[object]
) -> None:
    """On a GPU `auto` compiles the block, and uses Triton for embeddings and head."""
    kernels = choose_kernels("auto", "auto", GPU)
    assert block_modules(kernels) == {"pretrain.kernels", FUSED}
    assert kernels.embedding_norm.__module__ == f"{FUSED}.embedding_norm", (
        "it is outside the layers"
    )
    assert [kernels.linear_cross_entropy, kernels.soft_cross_entropy] == fused_head
    assert kernels.name == "block compiled, head triton"


@pytest.mark.parametrize(
    ("block", "device"), [("reference", CPU), ("reference", GPU), ("compiled", CPU)]
)
def test_explicit_block_is_kept(block: Block, device: torch.device) -> None:
    """A block chosen by name is used on any device."""
    kernels = choose_kernels(block, "reference", device)
    assert block_modules(kernels) == {"pretrain.kernels"}
    assert kernels.name == f"block {block}, head reference"


def test_interpreter_allows_triton_on_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With TRITON_INTERPRET=1 the Triton kernels are available on a CPU."""
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
def test_triton_refused_on_cpu(gpu_machine: None, block: Block, head: Head, key: str) -> None:
    """Triton by name is refused on a CPU."""
    with pytest.raises(UserError, match=f"{key} is triton, but the device is cpu"):
        choose_kernels(block, head, CPU)


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize(
    ("block", "head", "key"),
    [("triton", "auto", "kernels.block"), ("auto", "triton", "kernels.head")],
)
def test_missing_triton_refused(
    without_triton: None, block: Block, head: Head, key: str, device: torch.device
) -> None:
    """Triton by name is refused where it is not installed."""
    with pytest.raises(UserError, match=f"{key} is triton, but .* not installed"):
        choose_kernels(block, head, device)


def test_missing_triton_is_logged(without_triton: None) -> None:
    """On a GPU without Triton, the name for the log gives the reason for the references."""
    kernels = choose_kernels("auto", "auto", GPU)
    assert kernels.name == "block reference, head reference, as triton is not installed"
    assert resolve_block("compiled", GPU) == "compiled"  # the error is torch's own
