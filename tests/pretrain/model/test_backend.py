"""The choice of a backend: defaults of each device, and refusal of contradictory options."""

import dataclasses

import pytest
import torch

from data_prep.errors import UserError
from pretrain.config.model import KernelOptions
from pretrain.config.train import TrainOptions
from pretrain.model import BertShape
from pretrain.model.backend import Backend, choose_backend, choose_block, describe_backend

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("options", "device", "zero_stage", "block"),
    [
        ({}, CPU, 0, "reference"),
        ({}, CPU, 3, "reference"),
        ({}, GPU, 2, "compiled"),
        ({}, GPU, 3, "triton"),
        ({"compile": False}, GPU, 0, "triton"),
        ({"compile": True}, CPU, 1, "compiled"),
        ({"block": "compiled"}, CPU, 2, "compiled"),
        ({"block": "reference"}, GPU, 3, "reference"),
        ({"block": "triton", "compile": False}, GPU, 0, "triton"),
    ],
)
def test_block_by_recipe_device_and_stage(
    tiny_shape: BertShape,
    options: dict[str, object],
    device: torch.device,
    zero_stage: int,
    block: str,
) -> None:
    """The block follows from the recipe, the device and the ZeRO stage."""
    chosen = choose_block(KernelOptions(**options), tiny_shape, device, zero_stage)  # type: ignore[arg-type]
    assert chosen == block


@pytest.mark.parametrize(
    ("options", "zero_stage", "message"),
    [
        ({"compile": True}, 3, "does not work under ZeRO-3"),
        ({"block": "compiled"}, 3, "does not work under ZeRO-3"),
        ({"block": "compiled", "compile": False}, 0, "false contradicts kernels.block compiled"),
        ({"block": "reference", "compile": True}, 0, "true contradicts kernels.block reference"),
        ({"block": "triton", "compile": True}, 0, "true contradicts kernels.block triton"),
    ],
)
def test_contradictory_options_refused(
    tiny_shape: BertShape, options: dict[str, object], zero_stage: int, message: str
) -> None:
    """Options that contradict each other or ZeRO-3 are refused."""
    with pytest.raises(UserError, match=message):
        choose_block(KernelOptions(**options), tiny_shape, GPU, zero_stage)  # type: ignore[arg-type]


def test_pre_norm_has_no_triton_block(tiny_shape: BertShape) -> None:
    """A pre-norm model has no Triton block, neither by `auto` nor by name."""
    shape = dataclasses.replace(tiny_shape, norm="pre")
    assert choose_block(KernelOptions(), shape, GPU, 3) == "reference"
    with pytest.raises(UserError, match=r"no kernel for model\.norm pre"):
        choose_block(KernelOptions(block="triton"), shape, GPU, 0)


def train(requested: bool | int) -> TrainOptions:
    return TrainOptions(steps=1, batch_rows=1, micro_rows=1, activation_checkpointing=requested)


def test_number_of_checkpointed_layers(tiny_shape: BertShape) -> None:
    """`train.activation_checkpointing` gives the number of checkpointed layers."""
    for requested, layers in ((False, 0), (True, 2), (0, 0), (1, 1), (2, 2)):
        chosen = choose_backend(KernelOptions(), train(requested), tiny_shape, CPU)
        assert chosen == Backend(kernels=chosen.kernels, checkpointed_layers=layers)
    with pytest.raises(UserError, match=r"activation_checkpointing 3 exceeds the model's 2 layers"):
        choose_backend(KernelOptions(), train(3), tiny_shape, CPU)


def test_flash_option_requires_varlen(tiny_shape: BertShape) -> None:
    """`kernels.flash` is refused unless the attention is `varlen`."""
    with pytest.raises(
        UserError, match=r"flash FA4 applies to kernels\.attention varlen.* uses sdpa"
    ):
        choose_backend(KernelOptions(flash="FA4"), train(False), tiny_shape, CPU)


def test_describe_backend_names_choices(tiny_shape: BertShape) -> None:
    """The log line names all choices, and why a GPU's layers are not compiled."""
    backend = choose_backend(KernelOptions(), train(True), tiny_shape, CPU)
    line = describe_backend(KernelOptions(), backend, CPU)
    choices = f"{backend.kernels.name}, sdpa attention, activation checkpointing of 2 layer(s)"
    assert line == f"Computed with {choices}."
    assert "because ZeRO-3" in describe_backend(KernelOptions(), backend, GPU)
    compiled = dataclasses.replace(backend, compiled=True)
    assert describe_backend(KernelOptions(), compiled, GPU).endswith("compiled layers.")
