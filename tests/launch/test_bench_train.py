"""The training and kernel benchmarks: all sides get the same samples and do what they claim."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer
from launch.bench import _parser
from launch.benchmarks import kernels, timing, train, train_data
from launch.benchmarks.kernel_cases import CASES, Size, exact_kernels
from launch.benchmarks.timing import Turns, median_ms, take_turns, top_operations
from launch.benchmarks.train_sides import HuggingFace, Ours, Setting, Update
from pretrain.config.run import MaskOptions
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import BatchSource
from pretrain.kernels.dispatch import choose_kernels
from pretrain.model import BertShape
from pretrain.model.backend import Backend

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
ROWS, ROW_TOKENS = 4, 64
Parse = Callable[..., argparse.Namespace]


@pytest.fixture
def parse() -> Parse:
    def parsed(*words: str) -> argparse.Namespace:
        return _parser(words[0]).parse_args(words)

    return parsed


@pytest.fixture
def packed() -> list[list[Batch]]:
    batches = train_data._random_batches(ROWS, ROW_TOKENS, 200)
    return [[next(batches), next(batches)] for _ in range(3)]


@pytest.fixture
def setting(packed: list[list[Batch]], tiny_shape: BertShape) -> Setting:
    samples = [s for step in packed for batch in step for s in train_data.samples_of(batch)]
    padded = train_data.pad_samples(samples, ROWS, ROW_TOKENS)
    return Setting(
        shape=tiny_shape,
        precision="fp32",
        device=CPU,
        backend=Backend(),
        data=train_data.Data("random", packed, [padded[:2], padded[2:4]]),
    )


def test_random_rows_are_such_as_the_loader_makes(packed: list[list[Batch]]) -> None:
    for batch in (batch for step in packed for batch in step):
        bounds = batch.cu_seqlens.unique().tolist()
        begins = ((batch.positions == 0) & (batch.sample_ids > 0)).nonzero().flatten().tolist()
        assert bounds == [*begins, ROWS * ROW_TOKENS]
        assert {first * ROW_TOKENS for first in range(ROWS)} <= set(begins)
        lengths = torch.tensor(bounds).diff()
        assert lengths.min() >= 16 and lengths.max() <= ROW_TOKENS
        places, labels = batch.mlm_targets
        assert (batch.input_ids[places] == train_data._MASK).all() and (labels >= 5).all()
        assert batch.counts == {
            "masked": len(places),
            "samples": len(begins),
            "tokens": ROWS * ROW_TOKENS,
            "squares": int((lengths**2).sum()),
        }


def test_padded_rows_hold_the_same_samples_and_masks(
    tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    source = BatchSource(
        Corpus.open(tiny_corpus),
        load_tokenizer(tiny_tokenizer),
        MaskOptions(),
        seed=0,
        row_tokens=ROW_TOKENS,
        cache=tmp_path,
    )
    (batch,) = source.step(0, 16, 0, 1, 16)
    samples = train_data.samples_of(batch)
    assert len(samples) == batch.counts["samples"]
    padded = train_data.pad_samples(samples, 1, ROW_TOKENS)
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


def test_samples_that_fill_no_batch_are_left_out(packed: list[list[Batch]]) -> None:
    samples = train_data.samples_of(packed[0][0])
    padded = train_data.pad_samples(samples[:5], 2, ROW_TOKENS)
    assert [batch.counts["samples"] for batch in padded] == [2, 2]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("side", ["ours", "peer"])
def test_a_side_trains(side: str, precision: Any, setting: Setting) -> None:
    chosen = Setting(**{**vars(setting), "precision": precision})
    made: Any = (
        Ours("ours/a", chosen) if side == "ours" else HuggingFace("peer/b", chosen, compiled=False)
    )
    masters = made._update._masters
    before = [weight.detach().clone() for weight in masters]
    made.step(0)
    moved = [
        float((weight.detach() - old).abs().max())
        for weight, old in zip(masters, before, strict=True)
    ]
    # AdamW's first step moves an element by the learning rate where it has any gradient.
    assert min(moved) > 0 and max(moved) < 2e-4
    assert all(weight.dtype == torch.float32 for weight in masters)
    assert all(weight.grad is None for weight in made._model.parameters())


class Counter:
    """A side that writes down when it ran."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self._seen = name, seen

    def step(self, number: int) -> None:
        self._seen.append(f"{self.name}{number}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_update_leaves_what_got_no_gradient_as_it_is(dtype: torch.dtype) -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)]).to(dtype)
    update = Update(model)
    first, second = ([p.detach().clone() for p in part.parameters()] for part in model)
    for _ in range(2):
        model[0](torch.ones(3, 4, dtype=dtype)).square().sum().backward()
        update()
        assert all(p.grad is None for p in model.parameters())
    assert not any(map(torch.equal, model[0].parameters(), first))
    assert all(map(torch.equal, model[1].parameters(), second))


def test_sides_take_turns_after_all_have_warmed_up() -> None:
    seen: list[str] = []
    compiled = iter([9, 0, 1, 0, 0])
    found = take_turns(
        [lambda: Counter("a", seen), lambda: Counter("b", seen)],
        rounds=2,
        steps=2,
        warm_up=1,
        device=CPU,
        count_compilations=lambda: next(compiled),
    )
    assert seen == ["a0", "b0", "a0", "a1", "b0", "b1", "a0", "a1", "b0", "b1"]
    assert [(side.name, len(turns.seconds), turns.compilations) for side, turns in found] == [
        ("a", 2, 0),
        ("b", 2, 1),
    ]


def test_a_median_leaves_out_the_first_calls() -> None:
    calls: list[int] = []
    assert median_ms(lambda: calls.append(1), 5, CPU) >= 0
    assert len(calls) == 8
    assert timing.peak_bytes(lambda: None, CPU) is None


def test_the_profile_names_what_takes_the_time() -> None:
    a = torch.randn(300, 300)
    operations = top_operations(lambda: [a @ a for _ in range(20)], CPU)
    assert operations[0]["name"] == "aten::mm" and operations[0]["calls"] == 20
    assert sum(operation["share"] for operation in operations) == pytest.approx(1, abs=0.01)


def test_figures_are_real_tokens_and_ratios_stand_with_ours(setting: Setting, parse: Parse) -> None:
    arguments = parse("train", "--steps", "3")
    ours, peer = Ours("ours/packed", setting), HuggingFace("peer/hf_sdpa", setting, compiled=False)
    sides: Any = [(ours, Turns([1.0, 2.0])), (peer, Turns([4.0, 4.0]))]
    rows = {row.name: row for row in train.compare(sides, setting, arguments, 1e12)}
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
def test_every_case_gives_the_output_and_all_gradients(case: Any) -> None:
    size = Size(tokens=64, width=16, feed_forward=32, vocab_size=50)
    plain = choose_kernels("reference", "reference", CPU)
    exact = case.prepare(exact_kernels(), size, torch.float64, CPU)()
    found = case.prepare(plain, size, torch.float32, CPU)()
    assert len(exact) >= 3 and all(bool(x.any()) for x in exact)
    # The same numbers were drawn, up to the rounding of fp32.
    assert all(torch.allclose(x.double(), y, atol=1e-3) for x, y in zip(found, exact, strict=True))
    assert case.elements(size) > 0


def test_kernels_are_measured_against_fp64_and_a_measured_limit(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "copy_bandwidth", lambda device, size: 1e9)
    monkeypatch.setattr(kernels, "matmul_flops", lambda dtype, device, size: 1e9)
    rows = {row.name: row for row in kernels.run(parse("kernels", "--quick"), tmp_path)}
    assert rows["limit/bias_gelu/tiny"].values[0] == pytest.approx(5 * 256 * 64 * 4 / 1e6)
    for case in CASES:
        # A sum of a few hundred roundings of 2^-24.
        assert 0 < rows[f"peer/{case.name}/eager/tiny"].details["error"] < 1e-5


def test_wrong_requests_are_one_sentence(parse: Parse, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a multiple of --row-tokens"):
        train.run(parse("train", "--row-tokens", "100", "--micro-tokens", "1024"), tmp_path)
    with pytest.raises(UserError, match="at least 1"):
        kernels.run(parse("kernels", "--calls", "0"), tmp_path)


@pytest.mark.story
def test_a_training_step_is_measured_from_end_to_end(tmp_path: Path) -> None:
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
def test_a_machine_without_the_packages_of_preparation_measures_random_ids() -> None:
    words = ["bench.py", "train", "--quick", "--micro-tokens", "512", "--steps", "1"]
    lacking = ["pydantic", "datasets", "deepspeed", "pyarrow"]
    ended = run_bench(
        f"import sys; sys.modules.update(dict.fromkeys({lacking!r})); sys.argv = {words!r}"
    )
    assert "random ids" in ended.stdout and "ours/packed/tiny_128" in ended.stdout


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
