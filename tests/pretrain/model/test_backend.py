"""How a model is computed: what each device gets, and what contradicts itself is refused."""

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
def test_a_recipe_device_and_stage_give_a_block(
    tiny_shape: BertShape,
    options: dict[str, object],
    device: torch.device,
    zero_stage: int,
    block: str,
) -> None:
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
def test_what_contradicts_itself_is_refused(
    tiny_shape: BertShape, options: dict[str, object], zero_stage: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        choose_block(KernelOptions(**options), tiny_shape, GPU, zero_stage)  # type: ignore[arg-type]


def test_a_pre_norm_model_has_no_triton_block(tiny_shape: BertShape) -> None:
    shape = dataclasses.replace(tiny_shape, norm="pre")
    assert choose_block(KernelOptions(), shape, GPU, 3) == "reference"
    with pytest.raises(UserError, match=r"no kernel for model\.norm pre"):
        choose_block(KernelOptions(block="triton"), shape, GPU, 0)


def train(requested: bool | int) -> TrainOptions:
    return TrainOptions(steps=1, batch_rows=1, micro_rows=1, activation_checkpointing=requested)


def test_layers_are_computed_again_as_asked(tiny_shape: BertShape) -> None:
    for requested, layers in ((False, 0), (True, 2), (0, 0), (1, 1), (2, 2)):
        chosen = choose_backend(KernelOptions(), train(requested), tiny_shape, CPU)
        assert chosen == Backend(kernels=chosen.kernels, checkpointed_layers=layers)
    with pytest.raises(UserError, match=r"activation_checkpointing 3 exceeds the model's 2 layers"):
        choose_backend(KernelOptions(), train(3), tiny_shape, CPU)


def test_another_flash_attention_needs_varlen(tiny_shape: BertShape) -> None:
    with pytest.raises(
        UserError, match=r"flash FA4 applies to kernels\.attention varlen.* uses sdpa"
    ):
        choose_backend(KernelOptions(flash="FA4"), train(False), tiny_shape, CPU)


def test_the_choices_are_told_and_why_nothing_is_compiled(tiny_shape: BertShape) -> None:
    backend = choose_backend(KernelOptions(), train(True), tiny_shape, CPU)
    line = describe_backend(KernelOptions(), backend, CPU)
    choices = f"{backend.kernels.name}, sdpa attention, activation checkpointing of 2 layer(s)"
    assert line == f"Computed with {choices}."
    assert "because ZeRO-3" in describe_backend(KernelOptions(), backend, GPU)
    compiled = dataclasses.replace(backend, compiled=True)
    assert describe_backend(KernelOptions(), compiled, GPU).endswith("compiled layers.")
