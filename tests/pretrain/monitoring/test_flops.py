"""The formula of operations, against what torch counts when it runs the model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pretrain.data.batch_source import BatchSource
from pretrain.distributed import Cluster
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import Term, normalised_loss
from pretrain.model import Bert, BertShape
from pretrain.monitoring.flops import StepFlops, TeacherPass, forward_flops, training_flops
from pretrain.monitoring.gpu_peaks import Arithmetic, device_peak, peak_flops
from pretrain.monitoring.window_metrics import MetricsWindow

LARGE = BertShape(
    vocab_size=30522,
    layers=24,
    width=1024,
    heads=16,
    feed_forward=4096,
    positions=512,
    dropout=0.1,
    pad_id=0,
    next_sentence=False,
)
Counts = dict[str, int]


def counts(tokens: int = 0, squares: int = 0, masked: int = 0, samples: int = 0) -> Counts:
    return {"tokens": tokens, "squares": squares, "masked": masked, "samples": samples}


def test_bert_large_flops_match_literature() -> None:
    """BERT-large needs the operations that published speeds imply."""
    # 1.88 GFLOP a token at length 128 with 15 % of the tokens masked: it turns the 272 sequences/s
    # of DeepSpeed's BERT record (May 2020 post) into the 64 TFLOPS that the post gives.
    rows = 1000
    work = counts(tokens=128 * rows, squares=128**2 * rows, masked=round(0.15 * 128 * rows))
    a_row = training_flops(LARGE, work) / rows
    assert a_row / 128 == pytest.approx(1.88e9, rel=0.01)
    assert 272 * a_row == pytest.approx(64e12, rel=0.04)


def test_flops_match_torch_counter(
    tiny_shape: BertShape, open_source: Callable[..., BatchSource]
) -> None:
    """The matrix products of a step are those that torch counts."""
    model = Bert(tiny_shape)
    (batch,) = open_source().step(0, 4, 0, 1, 4)
    with FlopCounterMode(display=False) as counter:
        terms: Any = model(batch, pretraining_terms)
        normalised_loss(terms, batch.counts).backward()
    # The counter includes padding, and attention over whole rows where there is no varlen kernel.
    # Embeddings are no products.
    found = counter.get_flop_counts()["Global"]
    attention = [n for operator, n in found.items() if "attention" in str(operator)]
    padded = batch.input_ids.numel()
    filled = {
        "tokens": padded,
        "masked": len(batch.masked_positions),
        "samples": len(batch.cls_positions),
    }
    expected = training_flops(tiny_shape, batch.counts | filled | {"squares": 0})
    assert sum(found.values()) - sum(attention) == expected


def test_directions_double_flops_but_nsp(
    tiny_shape: BertShape,
) -> None:
    """Both directions cost twice as much, but for the NSP head."""
    work = counts(tokens=10, squares=52, masked=2, samples=2)
    once, twice = (training_flops(tiny_shape, work, directions) for directions in (1, 2))
    nsp_head = 6 * (32 * 32 + 2 * 32) * 2
    assert twice - nsp_head == 2 * (once - nsp_head)
    alone = replace(tiny_shape, next_sentence=False)
    assert training_flops(alone, work) == once - nsp_head


def test_teacher_adds_forward_pass(tiny_shape: BertShape) -> None:
    """A teacher adds its forward pass, with or without its MLM head."""
    work = counts(tokens=10, squares=52, masked=2)
    own = training_flops(tiny_shape, work)
    both = StepFlops(trained=tiny_shape).of_step(work, [TeacherPass(LARGE, has_mlm_head=True)])
    assert both == own + training_flops(LARGE, work) // 3
    everywhere = StepFlops(trained=tiny_shape).of_step(work, logits_at_all_tokens=True)
    assert everywhere == training_flops(tiny_shape, {**work, "masked": 2 + 10})
    layers = StepFlops(trained=tiny_shape).of_step(work, [TeacherPass(LARGE, has_mlm_head=False)])
    assert layers == own + forward_flops(LARGE, counts(tokens=10, squares=52))
    assert StepFlops(trained=LARGE).of_step(work) == 3 * forward_flops(LARGE, work)


@pytest.mark.parametrize(
    ("card", "arithmetic", "tera"),
    [
        ("NVIDIA H200", "bf16", 989.5),
        ("NVIDIA H100 80GB HBM3", "fp16", 989.5),
        ("NVIDIA H100 PCIe", "tf32", 378.0),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312.0),
        ("A100-PCIE-40GB", "fp32", 19.5),
        ("NVIDIA A10", "bf16", 125.0),
        ("NVIDIA L40S", "bf16", 362.05),
        ("Tesla V100-SXM2-32GB", "fp16", 125.0),
        ("Tesla V100-SXM2-32GB", "tf32", 15.7),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
    ],
)
def test_known_card_has_peak(card: str, arithmetic: Arithmetic, tera: float) -> None:
    """A listed card has the peak of its data sheet."""
    assert peak_flops(card, arithmetic) == tera * 1e12


@pytest.mark.parametrize(
    ("card", "arithmetic"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA A10G", "bf16"),
        ("NVIDIA GH200 480GB", "bf16"),
        ("Tesla V100-SXM2-32GB", "bf16"),
    ],
)
def test_unknown_card_has_no_peak(card: str, arithmetic: Arithmetic) -> None:
    """A card that is not listed, or an arithmetic that it lacks, has no peak."""
    assert peak_flops(card, arithmetic) is None


def test_cpu_has_no_peak() -> None:
    """A CPU has no peak."""
    assert device_peak(torch.device("cpu"), "fp32") is None


def test_fp32_peak_follows_matmul_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak of fp32 is that of TF32 where torch may use it."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    card = torch.device("cuda", 0)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert device_peak(card, "fp32") == 67e12
        torch.set_float32_matmul_precision("high")
        assert device_peak(card, "fp32") == 494.5e12
    finally:
        torch.set_float32_matmul_precision(before)
    assert device_peak(card, "bf16") == 989.5e12


def test_window_has_tflops_and_mfu(alone: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window has TFLOPS, and the MFU where the peak is known."""
    now = [100.0]
    monkeypatch.setattr("pretrain.monitoring.window_metrics.time.perf_counter", lambda: now[0])
    for peak in (4e12, None):
        window = MetricsWindow(alone, peak)
        window.add_terms([Term("loss/mlm", torch.tensor(3.0), "masked", 1.0)], counts(masked=1))
        for _ in range(2):
            window.add_step(tokens=60, padded_tokens=64, flops=3 * 10**12, data_wait_s=0.0)
        now[0] += 3.0
        figures = window.close()
        assert figures["speed/tflops"] == pytest.approx(2.0)
        assert figures.get("speed/mfu") == (None if peak is None else pytest.approx(0.5))
