"""The training benchmark: all sides train on the same samples."""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks import device, train
from launch.benchmarks.batches import add_counts, open_source, with_padded
from launch.benchmarks.device import DeviceSide, Trainer, median_ms, top_operations
from launch.benchmarks.driver import Run
from launch.benchmarks.trainers import Setting, Update
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.model import BertShape
from pretrain.model.backend import Backend
from pretrain.model.compilation import CompilationCounter

BENCH = Path(__file__).parents[3] / "launch" / "bench.py"
CPU = torch.device("cpu")
ROWS, ROW_TOKENS = 4, 64


def parse(*words: str) -> argparse.Namespace:
    return _parser("train").parse_args(["train", *words])


@pytest.fixture
def packed(tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path) -> list[list[Batch]]:
    """Return three steps of two micro-batches."""
    source = open_source(tiny_corpus, tiny_tokenizer, ROW_TOKENS, tmp_path)
    return [source.step(number, 2 * ROWS, 0, 1, ROWS) for number in range(3)]


@pytest.fixture
def setting(packed: list[list[Batch]], tiny_shape: BertShape) -> Setting:
    vocab_size = 1 + max(int(batch.input_ids.max()) for step in packed for batch in step)
    return Setting(
        shape=dataclasses.replace(tiny_shape, vocab_size=vocab_size),
        precision="fp32",
        device=CPU,
        backend=Backend(),
        data=with_padded(packed, ROWS),
    )


def test_padded_rows_hold_same_samples(packed: list[list[Batch]]) -> None:
    """Padded rows hold the samples and masks of the packed ones, in their order."""
    batch = packed[0][0]
    rows = [row for step in with_padded([[batch]], 1).padded for row in step]
    assert len(rows) == batch.counts["samples"] and add_counts(rows) == batch.counts
    ids, labels, nexts, real = (
        torch.cat([row.inputs[name].flatten() for row in rows])
        for name in ("input_ids", "labels", "next_sentence_label", "attention_mask")
    )
    assert ids[real > 0].tolist() == batch.input_ids[batch.sample_ids > 0].tolist()
    assert labels[labels != IGNORE_INDEX].tolist() == batch.mlm_targets[1].tolist()
    assert nexts[nexts != IGNORE_INDEX].tolist() == batch.nsp_targets[1].tolist()
    assert (labels[real == 0] == IGNORE_INDEX).all()


def test_incomplete_batch_is_left_out(packed: list[list[Batch]]) -> None:
    """Samples that do not fill the micro-batches of a step are left out."""
    whole = sum(batch.counts["samples"] for step in packed for batch in step)
    padded = with_padded(packed, 5).padded
    assert {len(step) for step in padded} == {2}
    assert {batch.counts["samples"] for step in padded for batch in step} == {5}
    assert len(padded) == whole // 5 // 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("side", ["ours", "peer"])
def test_trainer_updates_all_weights(side: str, precision: Any, setting: Setting) -> None:
    """A step changes every weight by the learning rate, in fp32 masters."""
    chosen = dataclasses.replace(setting, precision=precision)
    make: Any = train.make_ours if side == "ours" else train.make_peer
    trainer: Trainer = make(side, chosen)
    update: Any = trainer.update
    before = [weight.detach().clone() for weight in update.masters]
    trainer.step(0)
    pairs = zip(update.masters, before, strict=True)
    moved = [float((weight.detach() - old).abs().max()) for weight, old in pairs]
    # AdamW's first step moves an element by the learning rate where it has any gradient.
    assert min(moved) > 0 and max(moved) < 2e-4
    assert all(weight.dtype == torch.float32 for weight in update.masters)
    assert all(weight.grad is None for weight in update.masters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_update_skips_missing_gradients(dtype: torch.dtype) -> None:
    """An update leaves weights without a gradient unchanged."""
    model = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)]).to(dtype)
    update = Update(model)
    first, second = ([p.detach().clone() for p in part.parameters()] for part in model)
    for _ in range(2):
        model[0](torch.ones(3, 4, dtype=dtype)).square().sum().backward()
        update()
        assert all(p.grad is None for p in model.parameters())
    assert not any(map(torch.equal, model[0].parameters(), first))
    assert all(map(torch.equal, model[1].parameters(), second))


def test_device_side_warms_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of warming up, and the compilations and teacher time in them, are not counted."""
    compilations: Iterator[int] = iter(range(100))
    monkeypatch.setattr(CompilationCounter, "_total", staticmethod(lambda: next(compilations)))
    seen: list[int] = []
    read = [0]

    def teacher_ms() -> float:  # 2 ms a step
        steps, read[0] = len(seen) - read[0], len(seen)
        return 2.0 * steps

    def losses(batches: Any, number: int) -> list[torch.Tensor]:
        seen.append(number)
        return []

    def trainer() -> Trainer:
        return Trainer(
            name="ours/a", steps=[[0]], losses=losses, update=lambda: None, teacher_ms=teacher_ms
        )

    side = DeviceSide(trainer, 2, CPU)
    assert seen == [0, 1, 2]
    for _ in range(2):
        run = side.run()
        assert run.result == {"compilations": 1, "teacher_ms": pytest.approx(2.0)}
        assert run.peak_bytes is None and run.seconds > 0
    assert seen == [0, 1, 2, 0, 1, 0, 1]


def test_median_excludes_first_calls() -> None:
    """The first calls warm up and are not in the median."""
    calls: list[int] = []
    assert median_ms(lambda: calls.append(1), 5, CPU) >= 0
    assert len(calls) == 8
    assert device.peak_bytes(lambda: None, CPU) is None


def test_profile_names_top_operations() -> None:
    """The profile names the operations that take the time."""
    a = torch.randn(300, 300)
    operations = top_operations(lambda: [a @ a for _ in range(20)], CPU)
    assert operations[0]["name"] == "aten::mm" and operations[0]["calls"] == 20
    assert sum(operation["share"] for operation in operations) == pytest.approx(1, abs=0.01)


def test_rows_count_real_tokens(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are real tokens a second, and our rows have the ratios."""
    makers = [partial(train.make_ours, "ours/packed", setting),
              partial(train.make_peer, "peer/hf_sdpa", setting)]  # fmt: skip
    seconds = {"ours/packed": (1.0, 2.0), "peer/hf_sdpa": (4.0, 4.0)}
    found = {
        name: [Run(seconds=s, result={"compilations": 0, "teacher_ms": 0.0}) for s in values]
        for name, values in seconds.items()
    }
    monkeypatch.setattr(train, "measure_in_turns", lambda sides, rounds: found)
    monkeypatch.setattr(train, "device_peak", lambda device, precision: 1e12)
    measured = train.measure_steps(makers, "tiny_128", parse("--steps", "3"), setting)
    rows = {row.name: row for row in measured}
    tokens = sum(batch.counts["tokens"] for step in setting.data.packed for batch in step)
    row = rows["ours/packed/tiny_128"]
    assert row.values == (tokens, tokens / 2)
    (ratio,) = row.ratio.values()
    peer = rows["peer/hf_sdpa/tiny_128"].values[0]
    assert ratio == pytest.approx((4 + 2) / 2 * tokens / (4 * peer))
    assert {"aten::addmm", "aten::mm"} & {o["name"] for o in row.details["top_operations"]}
    flops, share = (rows[f"ours/packed/tiny_128/{what}"].values[0] for what in ("flops", "mfu"))
    assert share == pytest.approx(100 * flops)
    assert not any(name.endswith("/teacher") for name in rows)


def test_rows_must_divide_micro_batch(tmp_path: Path) -> None:
    """Rows that do not fill a micro-batch are an error of one sentence."""
    for words in (("100", "1024"), ("1024", "1024"), ("8", "64")):
        with pytest.raises(UserError, match="must be a multiple of --row-tokens"):
            train.run(parse("--row-tokens", words[0], "--micro-tokens", words[1]), tmp_path)


@pytest.mark.story
def test_train_benchmark_end_to_end(tmp_path: Path) -> None:
    """`bench.py train` leaves a report with all rows, DeepSpeed's included."""
    path = tmp_path / "train.json"
    words = ["train", "--quick", "--deepspeed", "--micro-tokens", "512", "--json", str(path)]
    ended = subprocess.run([sys.executable, str(BENCH), *words], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    for name in ("ours/packed/tiny_128", "ours/packed_deepspeed/tiny_128"):
        assert set(rows[name]["ratio"]) == {"peer/hf_sdpa/tiny_128"}
        assert rows[name]["details"]["compilations_after_warming_up"] == 0
    assert not any(name.endswith("/mfu") for name in rows), "a CPU has no peak"
    assert "the shipped sample" in ended.stdout
