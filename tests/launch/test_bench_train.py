"""The training and kernel benchmarks: all sides train on the same samples."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer
from launch.bench import _parser
from launch.benchmarks import batches, device, kernels, train
from launch.benchmarks.device import DeviceSide, median_ms, top_operations
from launch.benchmarks.driver import Run
from launch.benchmarks.kernel_cases import CASES, Size, exact_kernels
from launch.benchmarks.trainers import HfPretraining, PackedTrainer, Setting, Update
from pretrain.config.run import MaskOptions
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import BatchSource
from pretrain.kernels.dispatch import choose_kernels
from pretrain.model import BertShape
from pretrain.model.backend import Backend
from pretrain.model.compilation import CompilationCounter
from pretrain.monitoring.device_timer import DeviceTimer

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
ROWS, ROW_TOKENS = 4, 64
# What a GPU machine without a network may lack; `None` in `sys.modules` blocks an import.
LACKING = ["pydantic", "datasets", "deepspeed", "pyarrow", "tokenizers", "psutil", "tensorboard"]
Parse = Callable[..., argparse.Namespace]


@pytest.fixture
def parse() -> Parse:
    def parsed(*words: str) -> argparse.Namespace:
        return _parser(words[0]).parse_args(words)

    return parsed


@pytest.fixture
def packed() -> list[list[Batch]]:
    found = batches.random_batches(ROWS, ROW_TOKENS, 200)
    return [[next(found), next(found)] for _ in range(3)]


@pytest.fixture
def setting(packed: list[list[Batch]], tiny_shape: BertShape) -> Setting:
    return Setting(
        shape=tiny_shape,
        precision="fp32",
        device=CPU,
        backend=Backend(),
        data=batches.pair_with_padded("random", packed, ROWS),
    )


def test_random_rows_match_loader_layout(packed: list[list[Batch]]) -> None:
    """Random rows have the layout of the loader's rows."""
    for batch in (batch for group in packed for batch in group):
        bounds = batch.cu_seqlens.unique().tolist()
        begins = ((batch.positions == 0) & (batch.sample_ids > 0)).nonzero().flatten().tolist()
        assert bounds == [*begins, ROWS * ROW_TOKENS]
        assert {first * ROW_TOKENS for first in range(ROWS)} <= set(begins)
        lengths = torch.tensor(bounds).diff()
        assert lengths.min() >= 16 and lengths.max() <= ROW_TOKENS
        masked, labels = batch.mlm_targets
        assert (batch.input_ids[masked] == batches.MASK_ID).all() and (labels >= 5).all()
        assert batch.counts == {
            "masked": len(masked),
            "samples": len(begins),
            "tokens": ROWS * ROW_TOKENS,
            "squares": int((lengths**2).sum()),
        }


def test_padded_rows_hold_same_samples(
    tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """Padded rows hold the samples and masks of the packed ones."""
    source = BatchSource(
        Corpus.open(tiny_corpus),
        load_tokenizer(tiny_tokenizer),
        MaskOptions(),
        seed=0,
        row_tokens=ROW_TOKENS,
        cache=tmp_path,
    )
    (batch,) = source.step(0, 16, 0, 1, 16)
    samples = batches.samples_of(batch)
    assert len(samples) == batch.counts["samples"]
    padded = batches.pad_samples(samples, 1, ROW_TOKENS)
    assert len(padded) == len(samples)
    assert {name: sum(row.counts[name] for row in padded) for name in batch.counts} == batch.counts
    ids, labels, nexts = (
        torch.cat([row.inputs[name].flatten() for row in padded])
        for name in ("input_ids", "labels", "next_sentence_label")
    )
    real = torch.cat([row.inputs["attention_mask"].flatten() for row in padded]) > 0
    assert ids[real].tolist() == batch.input_ids[batch.sample_ids > 0].tolist()
    assert labels[labels != IGNORE_INDEX].tolist() == batch.mlm_targets[1].tolist()
    assert nexts[nexts != IGNORE_INDEX].tolist() == batch.nsp_targets[1].tolist()
    assert (labels[~real] == IGNORE_INDEX).all()


def test_incomplete_batch_is_left_out(packed: list[list[Batch]]) -> None:
    """Samples that do not fill a batch are left out."""
    samples = batches.samples_of(packed[0][0])
    padded = batches.pad_samples(samples[:5], 2, ROW_TOKENS)
    assert [batch.counts["samples"] for batch in padded] == [2, 2]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("side", ["ours", "peer"])
def test_trainer_updates_all_weights(side: str, precision: Any, setting: Setting) -> None:
    """A step changes every weight by the learning rate, in fp32 masters."""
    chosen = Setting(**{**vars(setting), "precision": precision})
    made: Any = (
        PackedTrainer("ours/a", chosen)
        if side == "ours"
        else HfPretraining("peer/b", chosen, compiled=False)
    )
    masters = made.update.masters
    before = [weight.detach().clone() for weight in masters]
    made.step(0)
    moved = [
        float((weight.detach() - old).abs().max())
        for weight, old in zip(masters, before, strict=True)
    ]
    # AdamW's first step moves an element by the learning rate where it has any gradient.
    assert min(moved) > 0 and max(moved) < 2e-4
    assert all(weight.dtype == torch.float32 for weight in masters)
    assert all(weight.grad is None for weight in made.model.parameters())


class FakeTrainer:
    """A trainer that records its steps; each takes 2 ms of a teacher's time."""

    def __init__(self, seen: list[int]) -> None:
        self.name, self._seen = "ours/a", seen
        self.teacher_timer = DeviceTimer(CPU)

    def step(self, number: int) -> None:
        self._seen.append(number)
        self.teacher_timer._seconds += 0.002


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
    total = 0

    def compilations() -> int:
        nonlocal total
        total += 1
        return total

    monkeypatch.setattr(CompilationCounter, "_total", staticmethod(compilations))
    seen: list[int] = []
    side = DeviceSide(lambda: FakeTrainer(seen), 2, CPU)
    assert side.name == "ours/a" and seen == [0, 1, 2]
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


def test_train_rows_count_real_tokens(
    setting: Setting, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures are real tokens a second, and our rows have the ratios."""
    arguments = parse("train", "--steps", "3")
    makers = [
        partial(PackedTrainer, "ours/packed", setting),
        partial(HfPretraining, "peer/hf_sdpa", setting, compiled=False),
    ]
    seconds = {"ours/packed": (1.0, 2.0), "peer/hf_sdpa": (4.0, 4.0)}
    found = {
        name: [Run(seconds=s, result={"compilations": 0}) for s in values]
        for name, values in seconds.items()
    }
    monkeypatch.setattr(train, "measure_in_turns", lambda sides, rounds: found)
    monkeypatch.setattr(train, "device_peak", lambda device, precision: 1e12)
    rows = {row.name: row for row in train.measure_steps(makers, "tiny_128", arguments, setting)}
    tokens = 3 * 2 * ROWS * ROW_TOKENS
    row = rows["ours/packed/tiny_128"]
    assert row.values == (tokens, tokens / 2)
    (ratio,) = row.ratio.values()
    assert ratio == pytest.approx(
        (4 + 2) / 2 * tokens / (4 * rows["peer/hf_sdpa/tiny_128"].values[0])
    )
    assert {"aten::addmm", "aten::mm"} & {o["name"] for o in row.details["top_operations"]}
    flops, share = (rows[f"ours/packed/tiny_128/{what}"].values[0] for what in ("flops", "mfu"))
    assert share == pytest.approx(100 * flops)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_returns_output_and_gradients(case: Any) -> None:
    """A case returns the output and all gradients, the same for every precision."""
    size = Size(tokens=64, width=16, feed_forward=32, vocab_size=50)
    plain = choose_kernels("reference", "reference", CPU)
    exact = case.prepare(exact_kernels(), size, torch.float64, CPU)()
    found = case.prepare(plain, size, torch.float32, CPU)()
    assert len(exact) >= 3 and all(bool(x.any()) for x in exact)
    # The same numbers were drawn, up to the rounding of fp32.
    assert all(torch.allclose(x.double(), y, atol=1e-3) for x, y in zip(found, exact, strict=True))
    assert case.elements(size) > 0


def test_kernels_report_error_and_limit(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows have the error against fp64, and limits from measured ceilings."""
    monkeypatch.setattr(kernels, "copy_bandwidth", lambda device, size: 1e9)
    monkeypatch.setattr(kernels, "matmul_flops", lambda dtype, device, size: 1e9)
    rows = {row.name: row for row in kernels.run(parse("kernels", "--quick"), tmp_path)}
    assert rows["limit/bias_gelu/tiny"].values[0] == pytest.approx(5 * 256 * 64 * 4 / 1e6)
    for case in CASES:
        # A sum of a few hundred roundings of 2^-24.
        assert 0 < rows[f"peer/{case.name}/eager/tiny"].details["error"] < 1e-5


def test_invalid_options_are_refused(parse: Parse, tmp_path: Path) -> None:
    """Invalid options are errors of one sentence."""
    with pytest.raises(UserError, match="must be a multiple of --row-tokens"):
        train.run(parse("train", "--row-tokens", "100", "--micro-tokens", "1024"), tmp_path)
    with pytest.raises(UserError, match="at least 1"):
        kernels.run(parse("kernels", "--calls", "0"), tmp_path)


@pytest.mark.story
def test_train_benchmark_end_to_end(tmp_path: Path) -> None:
    """`bench.py train` leaves a report with all rows, DeepSpeed's included."""
    path = tmp_path / "train.json"
    words = ["train", "--quick", "--deepspeed", "--micro-tokens", "512", "--json", str(path)]
    ended = run_bench(f"import sys; sys.argv = {['bench.py', *words]!r}")
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    for name in ("ours/packed/tiny_128", "ours/packed_deepspeed/tiny_128"):
        assert set(rows[name]["ratio"]) == {"peer/hf_sdpa/tiny_128"}
        assert rows[name]["details"]["compilations_after_warming_up"] == 0
    assert not any(name.endswith("/mfu") for name in rows), "a CPU has no peak"
    assert "the shipped sample" in ended.stdout


@pytest.mark.story
def test_train_runs_without_preparation_packages() -> None:
    """A machine without the packages of preparation measures a step on random ids."""
    words = ["bench.py", "train", "--quick", "--micro-tokens", "512", "--steps", "1"]
    ended = run_bench(
        f"import sys; sys.modules.update(dict.fromkeys({LACKING!r})); sys.argv = {words!r}"
    )
    assert "random ids" in ended.stdout and "ours/packed/tiny_128" in ended.stdout


@pytest.mark.story
def test_kernels_run_without_preparation_packages() -> None:
    """A machine without the packages of preparation measures the fused operations."""
    words = ["bench.py", "kernels", "--quick"]
    ended = run_bench(
        f"import sys; sys.modules.update(dict.fromkeys({LACKING!r})); sys.argv = {words!r}"
    )
    assert "peer/soft_cross_entropy/eager/tiny" in ended.stdout


def run_bench(first: str) -> "subprocess.CompletedProcess[str]":
    """Run bench.py as the main program, after a line of Python."""
    script = str(ROOT / "launch" / "bench.py")
    code = f"{first}\nimport runpy\nrunpy.run_path({script!r}, run_name='__main__')"
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended
