"""The forecast of memory, against the tensors that autograd saves.

What real engines hold is weighed in tests/stories/test_memory.py.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pretrain.config.run import TeacherRecipe
from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from pretrain.model.dropout_rng import dropout_keys
from pretrain.monitoring.memory_estimate import (
    Activations,
    MemoryForecast,
    Part,
    Zero,
    forecast_error_note,
    predict,
    saved_by_embeddings,
    saved_by_heads,
    saved_by_layer,
)

OpenSource = Callable[..., BatchSource]
SMALL = {"layers": 3, "width": 64, "heads": 4, "feed_forward": 256, "vocab_size": 1000}
MEDIUM = {"layers": 4, "width": 256, "heads": 4, "feed_forward": 1024, "vocab_size": 3000}


def zero(stage: int, ranks: int = 1, **changes: Any) -> Zero:
    made = Zero(
        stage=stage,
        ranks=ranks,
        offload=False,
        bucket=0,
        buckets=2,
        accumulates=True,
        accumulates_fp32=True,
    )
    return replace(made, **changes)


def activations(shape: BertShape, batch: Batch, **changes: Any) -> Activations:
    made = Activations(
        shape=shape,
        precision="fp32",
        tokens=batch.input_ids.numel(),
        masked=len(batch.masked_positions),
        row_tokens=batch.row_tokens,
        keeps_drops=False,
    )
    return replace(made, **changes)


def saved_bytes(model: Bert, batch: Batch) -> int:
    """Return what autograd holds between forward and backward pass, weights left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    keys = dropout_keys(0, 0, 0, 1, model.shape.layers, torch.device("cpu"))[0]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms: Any = model(batch, pretraining_terms, keys if model.shape.dropout else None)
        loss = normalised_loss(terms, batch.counts)
    # The graph is alive until here, so no address was given away twice.
    assert loss.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("changes", [SMALL, MEDIUM], ids=["small", "medium"])
@pytest.mark.parametrize("rows", [2, 16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_saved_tensors_are_those_of_the_formula(
    changes: dict[str, int],
    rows: int,
    dropout: float,
    norm: Any,
    tiny_shape: BertShape,
    open_source: OpenSource,
) -> None:
    shape = replace(tiny_shape, dropout=dropout, norm=norm, **changes)
    model = Bert(shape)
    initialise(model, seed=0)
    (batch,) = open_source().step(0, rows, 0, 1, rows)
    act = activations(shape, batch, keeps_drops=dropout > 0)
    expected = (
        shape.layers * sum(saved_by_layer(act).values())
        + sum(saved_by_embeddings(act).values())
        + sum(saved_by_heads(act).values())
    )
    # The head of the pairs, labels and places are left out of the formula: a few percent here.
    assert saved_bytes(model, batch) == pytest.approx(expected, rel=0.1)


def test_the_largest_phase_and_the_choices_of_execution_count(tiny_shape: BertShape) -> None:
    recipe = TeacherRecipe.model_validate(
        {
            "run": {"path": "unused"},
            "corpus": {"path": "unused"},
            "tokenizer": {"path": "unused"},
            "mask": {"rate": 0.15, "rate_end": 0.3, "bidirectional": True},
            "train": {
                "steps": 3,
                "batch_rows": 32,
                "micro_rows": 32,
                "row_tokens": 16,
                "phases": [{"steps": 2}, {"steps": 1, "row_tokens": 64, "micro_rows": 16}],
            },
        }
    )
    model = Bert(replace(tiny_shape, dropout=0.1))
    act = Activations.of(recipe, model)
    assert (act.tokens, act.row_tokens, act.masked) == (2048, 64, 614)
    assert act.keeps_drops and act.masks_attention and not act.chunks_logits
    fused = replace(model.backend.kernels, linear_cross_entropy=max, residual_norm=max)
    model.backend = Backend(kernels=fused, attention="varlen", checkpointed_layers=1)
    act = Activations.of(recipe, model)
    assert not act.keeps_drops and not act.masks_attention
    assert act.chunks_logits and act.checkpointed_layers == 1


def test_recomputation_keeps_the_input_of_each_layer_and_one_whole_layer(
    tiny_shape: BertShape, open_source: OpenSource
) -> None:
    shape = replace(tiny_shape, **MEDIUM)
    (batch,) = open_source().step(0, 4, 0, 1, 4)
    act = activations(shape, batch)
    layer = sum(saved_by_layer(act).values())
    whole, kept = (
        dict(predict(10**6, zero(0), a))["activations"]
        for a in (act, replace(act, checkpointed_layers=4))
    )
    inputs = saved_by_layer(act)["input of the layer"]
    assert whole - kept == 4 * (layer - inputs) - layer


def test_a_chunked_head_does_not_grow_with_the_masked_tokens(
    tiny_shape: BertShape, open_source: OpenSource
) -> None:
    (batch,) = open_source().step(0, 4, 0, 1, 4)
    shape = replace(tiny_shape, vocab_size=30522, width=768, feed_forward=3072)
    act = activations(shape, batch, masked=30_000)
    whole, chunked = (
        sum(size for name, size in predict(0, zero(0), a) if name in ("activations", "work space"))
        for a in (act, replace(act, chunks_logits=True))
    )
    assert whole > 10e9 > 1e9 > chunked


@pytest.mark.parametrize(
    ("stage", "kept"),
    # Bytes a parameter on 4 ranks, in bf16 with fp32 sums: weights, gradients, the rest.
    [(1, (2, 6, 3)), (2, (2, 1, 3)), (3, (2.5, 1, 3))],
)
def test_zero_divides_what_its_stage_says(
    stage: int, kept: tuple[float, float, float], tiny_shape: BertShape
) -> None:
    act = Activations(shape=tiny_shape, precision="bf16", tokens=64, masked=8, row_tokens=64)
    sizes = dict(predict(4000, zero(stage, ranks=4), act))
    assert sizes["weights"] == kept[0] * 4000
    assert sizes["gradients"] == kept[1] * 4000
    assert sizes["master weights in fp32"] + sizes["optimizer states"] == kept[2] * 4000
    offloaded = dict(predict(4000, zero(stage, ranks=4, offload=True), act))
    assert not {"master weights in fp32", "optimizer states"} & set(offloaded)


GIB = 2**30


def test_the_table_names_every_part_and_their_sum() -> None:
    lines = (
        MemoryForecast([Part("weights", GIB), Part("work space", 3 * GIB)], torch.device("cpu"))
        .table()
        .splitlines()
    )
    assert lines[1].split() == ["weights", "1.00", "GiB"]
    assert lines[-1].split() == ["together", "4.00", "GiB"]
    assert "MiB" in MemoryForecast([Part("weights", 2**20)], torch.device("cpu")).table()


def test_a_forecast_is_corrected_once_when_it_was_off_by_more_than_a_fifth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 10 * GIB)
    for expected, said in ((9, ""), (7, "7.00 GiB were expected"), (13, "13.00 GiB were expected")):
        card = MemoryForecast([Part("weights", expected * GIB)], torch.device("cuda", 0))
        assert card.figures() == {"memory/predicted_gib": expected}
        card.compare_with_peak()
        card.compare_with_peak()
        assert capsys.readouterr().out.count("10.00 GiB were needed") == bool(said)
    assert forecast_error_note(12 * GIB, 10 * GIB) is None


def test_a_cpu_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    laptop = MemoryForecast([Part("weights", GIB)], torch.device("cpu"))
    laptop.compare_with_peak()
    assert laptop.figures() == {} and capsys.readouterr().out == ""
