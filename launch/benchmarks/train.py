"""A training step of BERT: packed with our kernels, beside transformers on padded rows.

ours/packed: the model and task of a run on packed rows, heads at masked tokens
ours/packed_deepspeed: the same under DeepSpeed's engine, one rank, ZeRO-1 (--deepspeed)
peer/hf_sdpa: BertForPreTraining, a sample a row, SDPA, autocast; no dropout inside attention
peer/hf_sdpa_compiled: the same under torch.compile (on a GPU)
limit/matmul: what a large matrix product reaches here (on a GPU)
Figures are real tokens a second, padding not counted; all sides hold their models at once and take
turns. TFLOPS: of the products that the step needs, by the formula of pretrain/monitoring/flops.py;
mfu: their share of the card's dense peak in its data sheet.
"""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from launch.benchmarks.batches import add_counts, sample_data
from launch.benchmarks.device import (
    DTYPES,
    DeviceSide,
    Trainer,
    choose_device,
    matmul_flops,
    top_operations,
)
from launch.benchmarks.driver import Run, count_options, measure_in_turns, row_of
from launch.benchmarks.report import Row, compare
from launch.benchmarks.trainers import (
    Inputs,
    Setting,
    autocast,
    build_bert,
    build_hf,
    packed_trainer,
    padded_trainer,
)
from pretrain.config.model import ModelOptions
from pretrain.config.run import TeacherRecipe
from pretrain.model import BertShape
from pretrain.model.backend import choose_backend
from pretrain.monitoring.flops import training_flops
from pretrain.monitoring.gpu_peaks import device_peak
from pretrain.train.task import PretrainingTask

SHAPES = ("tiny", "base", "large")
_MATMUL = 8192
_MOST_STEPS = 8  # different ones; longer rounds repeat them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--shape", choices=SHAPES, default="base" if gpu else "tiny")
    add_step_arguments(parser, 32768 if gpu else 1024)
    parser.add_argument("--deepspeed", action="store_true", help="ours under DeepSpeed as well")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    recipe = step_recipe(arguments)
    if arguments.deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise UserError("--deepspeed needs the package deepspeed: install it, or leave this out.")
    setting = make_setting(shape_of(arguments.shape), recipe, arguments, scratch)
    on_gpu = setting.device.type == "cuda"
    makers = [partial(make_ours, "ours/packed", setting),
              partial(make_peer, "peer/hf_sdpa", setting)]  # fmt: skip
    if on_gpu:
        makers.append(partial(make_peer, "peer/hf_sdpa_compiled", setting, compiled=True))
    if arguments.deepspeed:
        makers.append(partial(make_ours, "ours/packed_deepspeed", setting, recipe))
    suffix = f"{arguments.shape}_{arguments.row_tokens}"
    rows = measure_steps(makers, suffix, arguments, setting)
    if on_gpu:
        dtype = DTYPES[setting.precision]
        speeds = (matmul_flops(dtype, setting.device, _MATMUL) for _ in range(arguments.repeat))
        values = tuple(flops / 1e12 for flops in speeds)
        rows.append(Row(name=f"limit/matmul_{_MATMUL}", unit="TFLOPS", values=values))
    if arguments.profile:
        _print_profile(rows)
    return rows


def make_ours(name: str, setting: Setting, deepspeed: TeacherRecipe | None = None) -> Trainer:
    """Return our model in pretraining, under DeepSpeed's engine if a recipe is given."""
    return packed_trainer(name, setting, build_bert(setting.shape), PretrainingTask(), deepspeed)


def make_peer(name: str, setting: Setting, compiled: bool = False) -> Trainer:
    """Return `BertForPreTraining`: MLM logits of all tokens, and NSP."""
    model = build_hf("BertForPreTraining", setting.shape).to(setting.device)
    call = torch.compile(model, dynamic=False) if compiled else model

    def loss(inputs: Inputs) -> torch.Tensor:
        with autocast(setting):
            found: torch.Tensor = call(**inputs).loss
        return found

    trainer = padded_trainer(name, setting, model, loss)
    trainer.flops = partial(training_flops, setting.shape)
    return trainer


def _print_profile(rows: Sequence[Row]) -> None:
    for row in rows:
        for operation in row.details.get("top_operations", []):
            print(
                f"{row.name}: {operation['share']:6.1%} {operation['ms']:9.3f} ms "
                f"{operation['calls']:5} x {operation['name']}"
            )


def add_step_arguments(parser: argparse.ArgumentParser, micro_tokens: int) -> None:
    """Declare the options of a step and its rounds."""
    numbers = {
        "--row-tokens": (128, "tokens of a row"),
        "--micro-tokens": (micro_tokens, "tokens of a micro-batch, padding included"),
        "--micro-batches": (1, "micro-batches of a step"),
        "--steps": (20, "steps of a round"),
        "--repeat": (5, "rounds"),
    }
    count_options(parser, numbers)
    usual = "bf16" if torch.cuda.is_available() else "fp32"
    parser.add_argument("--precision", choices=list(DTYPES), default=usual)
    blocks = ["auto", "reference", "compiled", "triton"]
    parser.add_argument("--block", choices=blocks, default="auto", help="our fused operations")


def step_recipe(arguments: argparse.Namespace) -> TeacherRecipe:
    """Return the recipe of a run with such steps; its paths are not read."""
    if arguments.quick:
        arguments.steps, arguments.repeat = min(arguments.steps, 5), min(arguments.repeat, 2)
    if arguments.micro_tokens % arguments.row_tokens or not 16 <= arguments.row_tokens <= 512:
        raise UserError(
            f"--micro-tokens {arguments.micro_tokens} must be a multiple of --row-tokens "
            f"{arguments.row_tokens}, and that 16 to 512."
        )
    rows = arguments.micro_tokens // arguments.row_tokens
    unused = {"path": "unused"}
    train = {
        "steps": 1_000_000,
        "batch_rows": rows * arguments.micro_batches,
        "micro_rows": rows,
        "row_tokens": arguments.row_tokens,
        "precision": arguments.precision,
    }
    return TeacherRecipe.model_validate(
        {
            **{"run": unused, "corpus": unused, "tokenizer": unused, "train": train},
            "kernels": {"block": arguments.block},
            "deepspeed": {"config": f"ds_configs/zero1_{arguments.precision}.json"},
        }
    )


def shape_of(name: str, next_sentence: bool = True) -> BertShape:
    """Return a published shape with the vocabulary of the published models."""
    sizes = {"layers", "width", "heads", "feed_forward", "dropout"}
    return BertShape(
        **ModelOptions.model_validate({"shape": name}).model_dump(include=sizes),
        positions=512,
        vocab_size=30522,
        pad_id=0,
        next_sentence=next_sentence,
    )


def make_setting(
    shape: BertShape, recipe: TeacherRecipe, arguments: argparse.Namespace, scratch: Path
) -> Setting:
    """Return what all sides share, batches included."""
    device, train = choose_device(), recipe.train
    # As a run in fp32 with train.tf32 does; the sides in 16 bits are not affected.
    torch.set_float32_matmul_precision("high")
    steps = min(arguments.steps, _MOST_STEPS)
    setting = Setting(
        shape=shape,
        precision=train.precision,
        device=device,
        backend=choose_backend(recipe.kernels, train, shape, device),
        data=sample_data(scratch, train, steps, pin=device.type == "cuda"),
    )
    _print_sizes(arguments, setting)
    return setting


def measure_steps(
    makers: Sequence[Callable[[], Trainer]],
    suffix: str,
    arguments: argparse.Namespace,
    setting: Setting,
) -> list[Row]:
    """Return the real tokens a second of all trainers, ours with their ratios, then their parts."""
    sides = [DeviceSide(make, arguments.steps, setting.device) for make in makers]
    found = measure_in_turns({side.trainer.name: side.run for side in sides}, arguments.repeat)
    peak = device_peak(setting.device, setting.precision)
    rates, parts = [], []
    for trainer in (side.trainer for side in sides):
        name, runs = f"{trainer.name}/{suffix}", found[trainer.name]
        batches = [batch for n in range(arguments.steps) for batch in trainer.batches(n)]
        counts = add_counts(batches)
        rates.append(_rate_row(name, runs, counts["tokens"], trainer, setting.device))
        parts += _teacher_rows(name, runs, arguments.steps)
        if trainer.flops:
            parts += _flops_rows(name, runs, trainer.flops(counts), peak)
    return [*compare(rates), *parts]


def _rate_row(
    name: str, runs: Sequence[Run], tokens: int, trainer: Trainer, device: torch.device
) -> Row:
    compilations = sum(run.result["compilations"] for run in runs)
    if compilations:
        print(f"warning: {name} compiled {compilations} time(s) after warming up")
    details: dict[str, Any] = {"compilations_after_warming_up": compilations}
    if name.startswith("ours/"):
        details["top_operations"] = top_operations(partial(trainer.step, 0), device)
    return row_of(name, "tokens/s", runs, lambda run: tokens / run.seconds, **details)


def _teacher_rows(name: str, runs: Sequence[Run], steps: int) -> list[Row]:
    """Return the milliseconds of a step with the teacher, if any, and with all else."""
    teacher = tuple(run.result["teacher_ms"] for run in runs)
    student = tuple(1000 * run.seconds / steps - run.result["teacher_ms"] for run in runs)
    parts = {"teacher": teacher, "student": student} if any(teacher) else {}
    return [Row(name=f"{name}/{part}", unit="ms", values=ms) for part, ms in parts.items()]


def _flops_rows(name: str, runs: Sequence[Run], flops: int, peak: float | None) -> list[Row]:
    """Return the operations a second and, of a card with a known peak, their share of it."""
    speeds = [flops / run.seconds for run in runs]
    rows = [Row(name=f"{name}/flops", unit="TFLOPS", values=tuple(s / 1e12 for s in speeds))]
    if peak is not None:
        shares = tuple(100 * s / peak for s in speeds)
        rows.append(Row(name=f"{name}/mfu", unit="% of peak", values=shares))
    return rows


def _print_sizes(arguments: argparse.Namespace, setting: Setting) -> None:
    """Print the sizes of a step, what our side computes with, and how full rows are."""
    size = arguments.micro_batches * arguments.micro_tokens
    packed, padded = (
        sum(add_counts(step)["tokens"] for step in steps) / (len(steps) * size)
        for steps in (setting.data.packed, setting.data.padded)
    )
    backend = setting.backend
    compiled = "compiled" if backend.compiled else "not compiled"
    print(f"""\
{arguments.precision}; {arguments.micro_batches} micro-batch(es) of {arguments.micro_tokens} \
tokens a step, rows of {arguments.row_tokens}; {arguments.repeat} round(s) of \
{arguments.steps} steps
text: the shipped sample; real tokens: {packed:.1%} of packed rows, {padded:.1%} of padded ones
ours: {backend.kernels.name}, {backend.attention} attention, {compiled}""")
