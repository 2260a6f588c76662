"""Compiled layers: one program for all of them, and no recompilation for another batch.

The backend "eager" omits code generation, which is slow on a CPU; the guards, which decide about
recompilation, are the same.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.model import Bert, BertShape, attention, initialise
from pretrain.model.backend import Backend
from pretrain.model.compilation import CompilationCounter, compile_layers
from tests.model_fixtures import keys_for

OpenSource = Callable[..., BatchSource]


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def model(tiny_shape: BertShape) -> Bert:
    model = Bert(dataclasses.replace(tiny_shape, layers=3, dropout=0.2))
    initialise(model, seed=3)
    return model


def micro_batches(source: BatchSource, micro_rows: int = 2) -> list[Batch]:
    return [batch for step in range(4) for batch in source.step(step, 8, 0, 1, micro_rows)]


def train(model: Bert, batches: list[Batch]) -> None:
    for step, batch in enumerate(batches):
        terms = model(batch, pretraining_terms, keys_for(batch, model.shape.layers, step))
        torch.stack([term.total for term in terms if term.weight]).sum().backward()


def test_one_program_for_all_batches(model: Bert, open_source: OpenSource) -> None:
    """All layers and all batches of one shape share a compiled program."""
    compile_layers(model, backend="eager")
    compilations = CompilationCounter()
    batches = micro_batches(open_source())
    assert len({tuple(batch.counts.values()) for batch in batches}) > 10
    train(model, batches[:1])
    assert compilations.since_last() == 1, "all layers share a program"
    train(model, batches[1:])
    assert compilations.since_last() == 0


def test_new_program_for_row_length_and_evaluation(model: Bert, open_source: OpenSource) -> None:
    """Another row length, and evaluation, compile one more program each."""
    compile_layers(model, backend="eager")
    compilations = CompilationCounter()
    long, short = micro_batches(open_source()), micro_batches(open_source(row_tokens=32))
    train(model, long[:2])
    compilations.since_last()
    for run in (
        lambda: train(model, short[:2]),
        lambda: model.eval()(long[0], pretraining_terms),
    ):
        run()
        assert compilations.since_last() == 1
    model.train()
    train(model, [*long[2:4], *short[2:4]])
    model.eval()(long[1], pretraining_terms)
    assert compilations.since_last() == 0


def test_number_of_sequences_does_not_recompile(
    model: Bert, open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number of sequences under `varlen` does not recompile."""

    def attention_by_cu_seqlens(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *a: object
    ) -> torch.Tensor:
        """Replace FlashAttention, which needs a GPU."""
        owners = torch.bucketize(torch.arange(len(q)), a[0], right=True)
        mask = owners[:, None] == owners[None, :]
        heads = (x.transpose(0, 1)[None] for x in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        return out[0].transpose(0, 1)

    monkeypatch.setattr(attention, "varlen_attn", attention_by_cu_seqlens)
    batch = micro_batches(open_source())[0]
    model.eval()
    expected = model(batch).hidden_ND
    model.backend = dataclasses.replace(Backend(), attention="varlen")
    compile_layers(model, backend="eager")
    found = [model(batch).hidden_ND]
    compilations = CompilationCounter()
    for more in (1, 5, 40):
        cu_seqlens = torch.cat([batch.cu_seqlens, batch.cu_seqlens[-1:].expand(more)])
        found.append(model(dataclasses.replace(batch, cu_seqlens=cu_seqlens)).hidden_ND)
    assert compilations.since_last() == 0
    for hidden in found:
        torch.testing.assert_close(hidden, expected)


def test_compiled_model_matches_eager(model: Bert, open_source: OpenSource) -> None:
    """A compiled model has the same hidden states and parameter names."""
    batch = open_source().rows(np.arange(3), 3)
    names = list(model.state_dict())
    keys = keys_for(batch, model.shape.layers)
    expected = model(batch, None, keys).hidden_ND
    compile_layers(model, backend="eager")
    assert torch.equal(model(batch, None, keys).hidden_ND, expected)
    assert list(model.state_dict()) == names


def test_compiled_layers_support_checkpointing(model: Bert, open_source: OpenSource) -> None:
    """Compiled layers give the same gradients under activation checkpointing."""
    batches = micro_batches(open_source())[:2]
    gradients = []
    for layers in (0, 3):
        torch.compiler.reset()
        again = Bert(model.shape)
        again.load_state_dict(model.state_dict())
        again.backend = dataclasses.replace(Backend(), checkpointed_layers=layers)
        compile_layers(again, backend="aot_eager")
        train(again, batches)
        gradients.append([p.grad for p in again.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
