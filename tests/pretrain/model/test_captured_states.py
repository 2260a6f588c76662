"""Captured states equal those of plain transformers, and capturing changes nothing else."""

import dataclasses
from typing import Any, Literal

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import BertConfig, BertForPreTraining

from pretrain.data.batch import Batch
from pretrain.data.dummy_batch import dummy_batch
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from pretrain.model.captured_states import Capture
from pretrain.model.compilation import compile_layers
from pretrain.model.hf_conversion import to_hf_config
from tests.model_fixtures import keys_for

LAYERS = 3
ALL = Capture(hidden=frozenset(range(LAYERS + 1)), attention=frozenset(range(1, LAYERS + 1)))


def build(shape: BertShape, norm: Literal["post", "pre"] = "post", **changes: Any) -> Bert:
    model = Bert(dataclasses.replace(shape, layers=LAYERS, norm=norm, **changes))
    initialise(model, seed=1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
        )
    return model


def all_states(model: Bert, batch: Batch, keys: torch.Tensor | None = None) -> list[torch.Tensor]:
    outputs = model(batch, None, keys, ALL)
    states = outputs.states
    projected = [x for layer in sorted(states.attention) for x in states.attention[layer]]
    return [outputs.hidden_ND, *(states.hidden[n] for n in range(LAYERS + 1)), *projected]


def test_captured_states_match_transformers(tiny_shape: BertShape) -> None:
    """Captured hidden states and projections equal those of transformers."""
    model = build(tiny_shape).eval()
    plain = BertForPreTraining(BertConfig(**to_hf_config(model.shape))).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = dummy_batch(model.shape.vocab_size, rows=2, row_tokens=16)
    hooked: dict[str, torch.Tensor] = {}
    for number, layer in enumerate(plain.bert.encoder.layer, start=1):
        for name in ("query", "key", "value"):
            getattr(layer.attention.self, name).register_forward_hook(
                lambda module, inputs, output, tag=f"{name}{number}": hooked.update({tag: output})
            )
    with torch.no_grad():
        rows = (batch.input_ids.view(2, 16), None, batch.token_types.view(2, 16))
        hidden = plain.bert(*rows, output_hidden_states=True).hidden_states
        states = model(batch, capture=ALL).states
    for layer in range(LAYERS + 1):
        found, expected = states.hidden[layer], hidden[layer].flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for layer, projected in states.attention.items():
        for name, found in zip(("query", "key", "value"), projected, strict=True):
            expected = hooked[f"{name}{layer}"].flatten(0, 1)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_only_requested_states_captured(
    tiny_shape: BertShape, packed: Batch, norm: Literal["post", "pre"]
) -> None:
    """Only the requested states are returned, with and without the heads."""
    model = build(tiny_shape, norm).eval()
    states = model(packed).states
    assert not states.hidden and not states.attention
    capture = Capture(hidden=frozenset({2}), attention=frozenset({1}))
    some, alone = model(packed, capture=capture).states, model.states(packed, capture)
    for found in (some, alone):
        assert found.hidden.keys() == {2} and found.attention.keys() == {1}
        assert torch.equal(found.hidden[2], all_states(model, packed)[3])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_last_captured_state_is_hidden(
    tiny_shape: BertShape, packed: Batch, norm: Literal["post", "pre"]
) -> None:
    """The captured state of the last layer is the model's hidden state."""
    model = build(tiny_shape, norm).eval()
    last = Capture(hidden=frozenset({LAYERS}))
    assert torch.equal(model.states(packed, last).hidden[LAYERS], model(packed).hidden_ND)


def test_layers_above_capture_skipped(tiny_shape: BertShape, packed: Batch) -> None:
    """`Bert.states` computes no layer above the highest captured one."""
    model = build(tiny_shape)
    ran: list[int] = []
    for number, layer in enumerate(model.bert.encoder.layer, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.states(packed, Capture(hidden=frozenset({0}), attention=frozenset({2})))
    assert ran == [1, 2]
    ran.clear()
    model.states(packed, Capture(hidden=frozenset({0})))
    assert ran == []


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_checkpointing_keeps_captured_states(
    tiny_shape: BertShape, packed: Batch, norm: Literal["post", "pre"]
) -> None:
    """Activation checkpointing changes neither captured states nor gradients."""
    model = build(tiny_shape, norm, dropout=0.1)
    keys = keys_for(packed, LAYERS)
    found = []
    for layers in (0, LAYERS):
        model.backend = Backend(checkpointed_layers=layers)
        model.zero_grad()
        states = all_states(model, packed, keys)
        torch.stack([state.square().sum() for state in states]).sum().backward()
        gradients = [p.grad.clone() for p in model.bert.encoder.parameters() if p.grad is not None]
        found.append([*states, *gradients])
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_compiled_layers_keep_captured_states(tiny_shape: BertShape, packed: Batch) -> None:
    """Compiled layers capture the same states, and each kind of capture is compiled once."""
    plain, compiled = build(tiny_shape), build(tiny_shape)
    compile_layers(compiled, backend="aot_eager")
    for actual, expected in zip(
        all_states(compiled, packed), all_states(plain, packed), strict=True
    ):
        torch.testing.assert_close(actual, expected)
    compiled(packed)
    before = counters["stats"]["unique_graphs"]
    for _ in range(2):
        all_states(compiled, packed)
        compiled(packed)
        compiled(packed, capture=Capture(attention=frozenset({2})))
    assert counters["stats"]["unique_graphs"] == before
