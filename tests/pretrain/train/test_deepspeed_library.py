"""What is replaced inside DeepSpeed still exists there, is still called, and does what it did.

When a test fails after an upgrade, read the function in the new version, adapt
`deepspeed_library.py` if need be, and only then the figures below.
"""

import ast
import hashlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator

import pytest
import torch
from deepspeed.runtime import bf16_optimizer, utils

from pretrain.train.deepspeed_library import (
    PATCHES,
    Patch,
    allow_under_zero,
    clip_by_global_norm,
    clip_gradients,
    disable_shm_collective,
    exact_norms,
    step_without_synchronisation,
)

# Of DeepSpeed 0.19.8: sha256 of the syntax tree, without docstring, of what is replaced.
SOURCES = {
    "is_invalid_grad_norm": "f51bdb9f619ef5ce",
    "mask_nan_or_inf_with_val_inplace": "b6c691a773da270c",
    "clip_tensors_by_global_norm": "1f73db633f170f91",
    "get_global_norm_of_tensors": "c5466641fe4d76f7",
    "clip_grad_norm_": "3c9b24fde59621b9",
}
# The functions that call each replaced global.
CALLERS = {
    ("bf16_optimizer", "is_invalid_grad_norm"): {"step"},
    ("stage_1_and_2", "is_invalid_grad_norm"): {"step", "unscale_and_clip_grads"},
    ("stage_1_and_2", "mask_nan_or_inf_with_val_inplace"): {"get_grad_norm_direct"},
    ("bf16_optimizer", "clip_tensors_by_global_norm"): {"step"},
    ("bf16_optimizer", "get_global_norm_of_tensors"): {"step"},
    ("engine", "clip_grad_norm_"): {"clip_fp32_gradients"},
}


def name_of(patch: Patch) -> str:
    """Return the module and the name that a patch replaces."""
    return f"{patch.module.__name__}.{patch.name}"


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what is replaced after a test."""
    for patch in PATCHES:
        monkeypatch.setattr(patch.module, patch.name, getattr(patch.module, patch.name))
    yield


def definition_of(name: str) -> ast.FunctionDef:
    """Return the definition of a function of `deepspeed.runtime.utils`, as the file has it."""
    tree = ast.parse(inspect.getsource(utils))
    return next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)


def callers_of(patch: Patch) -> set[str]:
    """Return the functions and methods of a module that call a global by its name."""
    source = inspect.getsource(patch.module)
    return {
        function.name
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == patch.name
    }


@pytest.mark.parametrize("patch", PATCHES, ids=name_of)
def test_patched_names_are_still_called(patch: Patch) -> None:
    """The module has the name, and the functions that synchronised still call it."""
    assert hasattr(patch.module, patch.name)
    expected = CALLERS[patch.module.__name__.rpartition(".")[2], patch.name]
    assert expected <= callers_of(patch)


@pytest.mark.parametrize("name", SOURCES)
def test_patched_functions_are_unchanged(name: str) -> None:
    """What is replaced is what was read when the replacement was written."""
    definition = definition_of(name)
    if ast.get_docstring(definition):
        definition.body = definition.body[1:]
    found = hashlib.sha256(ast.unparse(definition).encode()).hexdigest()[:16]
    assert found == SOURCES[name], textwrap.indent(ast.unparse(definition), "    ")


@pytest.mark.parametrize("patch", PATCHES, ids=name_of)
def test_replacements_take_the_same_parameters(patch: Patch) -> None:
    """A replacement is called like the original, by position or by name."""
    original = [argument.arg for argument in definition_of(patch.name).args.args]
    assert list(inspect.signature(patch.replacement).parameters) == original


@pytest.mark.parametrize("largest", [0.5, 1e3])
def test_clipping_matches_torch(largest: float) -> None:
    """Gradients are scaled as `torch.nn.utils.clip_grad_norm_` scales them."""
    parameters = [torch.nn.Parameter(torch.zeros(5)), torch.nn.Parameter(torch.zeros(3, 2))]
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.arange(1.0, parameter.numel() + 1).view(parameter.shape) + index
    ours = [p.grad.clone() for p in parameters if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, largest)
    clip_by_global_norm(ours, largest, norm)
    for mine, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("largest", [0.5, 10.0])
def test_clipping_of_many_elements_is_exact(largest: float) -> None:
    """The gradient of 23 million equal elements is clipped by its norm, to a few roundings."""
    parameter = torch.nn.Parameter(torch.zeros(23_000_000))
    parameter.grad = torch.full((23_000_000,), 2.0**-10)
    exact = 23_000_000**0.5 * 2.0**-10
    assert clip_gradients([parameter], largest).item() == pytest.approx(exact, rel=2e-6)
    clipped = 2.0**-10 * min(1.0, largest / exact)
    assert parameter.grad[0].item() == pytest.approx(clipped, rel=2e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nonfinite_norm_is_kept(value: float, restored: None) -> None:
    """A global norm that is NaN or infinite is not replaced by -1."""
    step_without_synchronisation()
    exact_norms()
    norm = bf16_optimizer.get_global_norm_of_tensors([torch.ones(3), torch.tensor([1.0, value])])
    assert not torch.isfinite(norm)


def test_absent_patched_name_is_an_error(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of DeepSpeed without a replaced function is refused, not used unpatched."""
    monkeypatch.delattr(PATCHES[0].module, PATCHES[0].name)
    with pytest.raises(RuntimeError, match="has no is_invalid_grad_norm to replace"):
        step_without_synchronisation()


def test_shm_collective_is_disabled() -> None:
    """DeepSpeed reads the entry that is set, by the name of the operation, and takes it as no."""
    from deepspeed.ops.op_builder.cpu.comm import ShareMemCommBuilder

    backend = importlib.import_module("deepspeed.comm.torch")
    disable_shm_collective()
    assert ShareMemCommBuilder.NAME == "deepspeed_shm_comm"
    assert not backend.deepspeed.ops.__compatible_ops__.get(ShareMemCommBuilder.NAME)
    assert "__compatible_ops__.get(builder.NAME" in inspect.getsource(backend.build_shm_op)


def test_optimizers_can_be_allowed_under_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's check accepts a class once it was added, and only once in the list."""
    from deepspeed.runtime.zero import utils as zero_utils
    from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS, is_zero_supported_optimizer

    monkeypatch.setattr(zero_utils.dist, "get_rank", lambda: 1)  # rank 0 logs, which needs a group

    class Plain(torch.optim.SGD):
        """An optimizer that DeepSpeed does not list."""

    optimizer = Plain([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert not is_zero_supported_optimizer(optimizer)
    try:
        allow_under_zero(Plain)
        allow_under_zero(Plain)
        assert is_zero_supported_optimizer(optimizer)
        assert ZERO_SUPPORTED_OPTIMIZERS.count(Plain) == 1
    finally:
        ZERO_SUPPORTED_OPTIMIZERS.remove(Plain)
