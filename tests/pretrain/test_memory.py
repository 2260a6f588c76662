"""The forecast of memory against what tensors take: autograd's, and those of real engines."""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pretrain.batches import Batch, BatchSource
from pretrain.cluster import Cluster
from pretrain.config import TeacherRecipe
from pretrain.memory import (
    Activations,
    Expectation,
    Part,
    Zero,
    describe_error,
    predict,
    saved_by_embeddings,
    saved_by_heads,
    saved_by_layer,
)
from pretrain.model import Bert, BertShape, initialise
from pretrain.objectives.term import normalised_loss
from pretrain.tasks import PretrainingTask

OpenSource = Callable[..., BatchSource]
SMALL = {"layers": 3, "width": 64, "heads": 4, "feed_forward": 256, "vocab_size": 1000}
MEDIUM = {"layers": 4, "width": 256, "heads": 4, "feed_forward": 1024, "vocab_size": 3000}


def zero(stage: int, ranks: int = 1, **changes: Any) -> Zero:
    made = Zero(stage=stage, ranks=ranks, offload=False, bucket=0, buckets=2, accumulates_fp32=True)
    return replace(made, **changes)


def activations(shape: BertShape, batch: Batch, **changes: Any) -> Activations:
    made = Activations(
        shape=shape,
        precision="fp32",
        tokens=batch.input_ids.numel(),
        masked=len(batch.masked),
        row_tokens=batch.input_ids.shape[-1],
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

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = normalised_loss(PretrainingTask().terms(model(batch), batch), batch.counts)
    # The graph is alive until here, so no address was given away twice.
    assert loss.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("changes", [SMALL, MEDIUM], ids=["small", "medium"])
@pytest.mark.parametrize("rows", [2, 16])
def test_saved_tensors_are_those_of_the_formula(
    changes: dict[str, int], rows: int, tiny_shape: BertShape, open_source: OpenSource
) -> None:
    shape = replace(tiny_shape, **changes)
    model = Bert(shape)
    initialise(model, seed=0)
    (batch,) = open_source().step(0, rows, 0, 1, rows)
    act = activations(shape, batch)
    expected = (
        shape.layers * sum(saved_by_layer(act).values())
        + sum(saved_by_embeddings(act).values())
        + sum(saved_by_heads(act).values())
    )
    # The head of the pairs, labels and places are left out of the formula: a few percent here.
    assert saved_bytes(model, batch) == pytest.approx(expected, rel=0.1)


def test_recomputation_keeps_the_input_of_each_layer_and_one_whole_layer(
    tiny_shape: BertShape, open_source: OpenSource
) -> None:
    shape = replace(tiny_shape, **MEDIUM)
    (batch,) = open_source().step(0, 4, 0, 1, 4)
    act = activations(shape, batch)
    layer = sum(saved_by_layer(act).values())
    whole, kept = (
        dict(predict(10**6, zero(0), a))["activations"] for a in (act, replace(act, recompute=4))
    )
    inputs = saved_by_layer(act)["input of the layer"]
    assert whole - kept == 4 * (layer - inputs) - layer


def test_a_chunked_head_does_not_grow_with_the_masked_tokens(
    tiny_shape: BertShape, open_source: OpenSource
) -> None:
    (batch,) = open_source().step(0, 4, 0, 1, 4)
    shape = replace(tiny_shape, vocab_size=30522, width=768, feed_forward=3072)
    act = activations(shape, batch, masked=10_000)
    whole, chunked = (
        sum(size for name, size in predict(0, zero(0), a) if name in ("activations", "work space"))
        for a in (act, replace(act, head_bytes=64 * 2**20))
    )
    assert whole > 3e9 > 0.5e9 > chunked


@pytest.mark.parametrize(
    ("stage", "kept"),
    # Bytes a parameter on 4 ranks, in bf16 with fp32 sums: weights, gradients, the rest.
    [(1, (2, 6, 3)), (2, (2, 1, 3)), (3, (2.5, 1, 3))],
)
def test_zero_divides_what_its_stage_says(
    stage: int, kept: tuple[float, float, float], tiny_shape: BertShape
) -> None:
    act = Activations(
        shape=tiny_shape, precision="bf16", tokens=64, masked=8, row_tokens=64, kernels="triton"
    )
    sizes = dict(predict(4000, zero(stage, ranks=4), act))
    assert sizes["weights"] == kept[0] * 4000
    assert sizes["gradients"] == kept[1] * 4000
    assert sizes["master weights in fp32"] + sizes["optimizer states"] == kept[2] * 4000
    offloaded = dict(predict(4000, zero(stage, ranks=4, offload=True), act))
    assert not {"master weights in fp32", "optimizer states"} & set(offloaded)


CONFIGS = [f"zero{stage}_{precision}" for stage in range(4) for precision in ("fp32", "bf16")]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_real_engine_holds_what_the_forecast_says(
    name: str, alone: Cluster, tiny_shape: BertShape, open_source: OpenSource
) -> None:
    from pretrain.engine import Engine, read_deepspeed_config

    recipe = recipe_for(name)
    config = read_deepspeed_config(recipe, 1, on_gpu=False)
    bucket = 40_000
    config["zero_optimization"]["reduce_bucket_size"] = bucket
    before = live_bytes()
    model = Bert(replace(tiny_shape, **MEDIUM))
    initialise(model, seed=0)
    engine = Engine(model, recipe, config)
    (batch,) = open_source().step(0, 4, 0, 1, 4)
    for updates in (True, False):
        engine.expect(1)
        terms = PretrainingTask().terms(engine(batch), batch)
        engine.backward(normalised_loss(terms, batch.counts))
        if updates:
            engine.step(1e-4)
    del terms
    gc.collect()
    found = sum(live_bytes().values()) - sum(before.values())
    sizes = dict(
        predict(model.count_parameters(), Zero.of(config, 1), activations(model.shape, batch))
    )
    expected = sum(n for part, n in sizes.items() if part not in ("activations", "work space"))
    assert found == pytest.approx(expected, rel=0.12)


def live_bytes() -> dict[int, int]:
    """Return the storages of all tensors that Python knows, by their address."""
    tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor)]
    gradients = [x.grad for x in tensors if x.is_leaf and x.grad is not None]
    storages = [x.untyped_storage() for x in tensors + gradients if x.device.type == "cpu"]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def recipe_for(name: str) -> TeacherRecipe:
    return TeacherRecipe.model_validate(
        {
            "run": {"path": "unused"},
            "corpus": {"path": "unused"},
            "tokenizer": {"path": "unused"},
            "train": {
                "steps": 10,
                "batch_rows": 4,
                "micro_rows": 4,
                "row_tokens": 64,
                "precision": name.split("_")[1],
            },
            "deepspeed": {"config": f"ds_configs/{name}.json"},
        }
    )


GIB = 2**30


def test_the_table_names_every_part_and_their_sum() -> None:
    lines = (
        Expectation([Part("weights", GIB), Part("work space", 3 * GIB)], torch.device("cpu"))
        .table()
        .splitlines()
    )
    assert lines[1].split() == ["weights", "1.00", "GiB"]
    assert lines[-1].split() == ["together", "4.00", "GiB"]
    assert "MiB" in Expectation([Part("weights", 2**20)], torch.device("cpu")).table()


def test_a_forecast_is_corrected_once_when_it_was_off_by_more_than_a_fifth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 10 * GIB)
    for expected, said in ((9, ""), (7, "7.00 GiB were expected"), (13, "13.00 GiB were expected")):
        card = Expectation([Part("weights", expected * GIB)], torch.device("cuda", 0))
        assert card.figures() == {"memory/predicted_gib": expected}
        card.compare_once()
        card.compare_once()
        assert capsys.readouterr().out.count("10.00 GiB were needed") == bool(said)
    assert describe_error(12 * GIB, 10 * GIB) is None


def test_a_cpu_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    laptop = Expectation([Part("weights", GIB)], torch.device("cpu"))
    laptop.compare_once()
    assert laptop.figures() == {} and capsys.readouterr().out == ""
