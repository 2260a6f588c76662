"""A training step of BERT: packed with our kernels, beside transformers on padded rows.

All sides hold their models at once and take turns; a figure is real tokens a second, padding not
counted. Text is the shipped sample, or random ids where a package of preparation is missing.
The functions without an underscore serve the distillation benchmark as well.
"""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from launch.benchmarks.batches import add_counts, make_data
from launch.benchmarks.device import DeviceSide, choose_device, matmul_flops, top_operations
from launch.benchmarks.driver import Run, measure_in_turns, row_of
from launch.benchmarks.report import Row, compare
from launch.benchmarks.trainers import (
    DTYPES,
    DeepSpeedTrainer,
    HfPretraining,
    PackedTrainer,
    Setting,
)
from pretrain.kernels.dispatch import choose_kernels, resolve_block
from pretrain.model import BertShape
from pretrain.model.attention import choose_attention
from pretrain.model.backend import Backend
from pretrain.monitoring.gpu_peaks import device_peak

SHAPES = {"tiny": (2, 128, 2), "base": (12, 768, 12), "large": (24, 1024, 16)}
_MATMUL = 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--shape", choices=list(SHAPES), default="base" if gpu else "tiny")
    add_step_arguments(parser, 32768 if gpu else 1024)
    parser.add_argument("--deepspeed", action="store_true", help="ours under DeepSpeed as well")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    check_step_arguments(arguments)
    if arguments.deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise UserError("--deepspeed needs the package deepspeed: install it, or leave this out.")
    setting = make_setting(shape_of(arguments.shape), arguments, choose_device(), scratch)
    suffix = f"{arguments.shape}_{arguments.row_tokens}"
    rows = measure_steps(_makers(arguments, setting), suffix, arguments, setting)
    rows += _limits(setting, arguments)
    _print_terms(arguments, setting)
    if arguments.profile:
        _print_profile(rows)
    return rows


def _makers(arguments: argparse.Namespace, setting: Setting) -> list[Callable[[], Any]]:
    makers: list[Callable[[], Any]] = [
        partial(PackedTrainer, "ours/packed", setting),
        partial(HfPretraining, "peer/hf_sdpa", setting, compiled=False),
    ]
    if setting.device.type == "cuda":
        makers.append(partial(HfPretraining, "peer/hf_sdpa_compiled", setting, compiled=True))
    if arguments.deepspeed:
        recipe = _recipe(arguments)
        makers.append(partial(DeepSpeedTrainer, "ours/packed_deepspeed", setting, recipe))
    return makers


def _recipe(arguments: argparse.Namespace) -> Any:
    """Return the recipe of a run like this; its paths are not read."""
    from pretrain.config.run import TeacherRecipe

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
            "deepspeed": {"config": f"ds_configs/zero1_{arguments.precision}.json"},
        }
    )


def _limits(setting: Setting, arguments: argparse.Namespace) -> list[Row]:
    """Return what a large matrix product reaches here: no step is faster than its products."""
    if setting.device.type != "cuda":
        return []
    dtype = DTYPES[arguments.precision]
    found = [matmul_flops(dtype, setting.device, _MATMUL) for _ in range(arguments.repeat)]
    values = tuple(flops / 1e12 for flops in found)
    return [Row(name=f"limit/matmul_{_MATMUL}", unit="TFLOPS", values=values)]


def _print_terms(arguments: argparse.Namespace, setting: Setting) -> None:
    """Print what is compared with what, and how operations are counted."""
    print(f"BERT-{arguments.shape}, vocabulary {setting.shape.vocab_size:,}")
    print_step_terms(arguments, setting)
    print("peer: BertForPreTraining, a sample a row, autocast, no dropout inside attention")
    if setting.device.type != "cuda":
        print("the compiled peer is left out: this machine has no GPU")
    print(
        "TFLOPS: 6 (12 D^2 L tokens + 2 D L sum of squared lengths + (D^2 + D V) masked tokens), "
        "F = 4 D; mfu: their share of the card's dense peak in its data sheet\n"
    )


def _print_profile(rows: Sequence[Row]) -> None:
    for row in rows:
        for operation in row.details.get("top_operations", []):
            print(
                f"{row.name}: {operation['share']:6.1%} {operation['ms']:9.3f} ms "
                f"{operation['calls']:5} x {operation['name']}"
            )
    print()


def add_step_arguments(parser: argparse.ArgumentParser, micro_tokens: int) -> None:
    """Declare the options of a step and its rounds."""
    gpu = torch.cuda.is_available()
    numbers = {
        "--row-tokens": (128, "tokens of a row"),
        "--micro-tokens": (micro_tokens, "tokens of a micro-batch, padding included"),
        "--micro-batches": (1, "micro-batches of a step"),
        "--steps": (20, "steps of a round"),
        "--repeat": (5, "rounds"),
    }
    for name, (default, meaning) in numbers.items():
        parser.add_argument(name, type=int, default=default, help=meaning)
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16" if gpu else "fp32")
    parser.add_argument(
        "--block", choices=["auto", "reference", "compiled", "triton"], default="auto",
        help="our fused operations",
    )  # fmt: skip


def check_step_arguments(arguments: argparse.Namespace) -> None:
    """Shorten a quick measurement, and refuse options that contradict each other."""
    if arguments.quick:
        arguments.steps, arguments.repeat = min(arguments.steps, 5), min(arguments.repeat, 2)
    if min(arguments.repeat, arguments.steps, arguments.micro_batches) < 1:
        raise UserError("--repeat, --steps and --micro-batches must be at least 1.")
    if arguments.micro_tokens % arguments.row_tokens or arguments.row_tokens > 512:
        raise UserError(
            f"--micro-tokens {arguments.micro_tokens} must be a multiple of --row-tokens "
            f"{arguments.row_tokens}, and that at most 512."
        )


def shape_of(name: str) -> BertShape:
    """Return one of the named shapes."""
    layers, width, heads = SHAPES[name]
    return BertShape(
        vocab_size=30522,
        layers=layers,
        width=width,
        heads=heads,
        feed_forward=4 * width,
        positions=512,
        dropout=0.1,
        pad_id=0,
        next_sentence=True,
    )


def make_setting(
    shape: BertShape, arguments: argparse.Namespace, device: torch.device, scratch: Path
) -> Setting:
    """Return what all sides share, batches included."""
    block = resolve_block(arguments.block, device)
    head_width = shape.width // shape.heads
    return Setting(
        shape=shape,
        precision=arguments.precision,
        device=device,
        backend=Backend(
            kernels=choose_kernels(block, "auto", device),
            attention=choose_attention("auto", device, arguments.precision, head_width),
            compiled=block == "compiled",
        ),
        data=make_data(arguments, shape.vocab_size, scratch, pin=device.type == "cuda"),
    )


def measure_steps(
    makers: Sequence[Callable[[], Any]],
    suffix: str,
    arguments: argparse.Namespace,
    setting: Setting,
) -> list[Row]:
    """Return the real tokens a second of all trainers, ours with their ratios, then their parts."""
    sides = [DeviceSide(make, arguments.steps, setting.device) for make in makers]
    found = measure_in_turns(sides, arguments.repeat)
    peak = device_peak(setting.device, setting.precision)
    rates: list[Row] = []
    parts: list[Row] = []
    for side in sides:
        name, runs = f"{side.name}/{suffix}", found[side.name]
        counts = _counts_of_round(setting, side.name.startswith("ours/"), arguments.steps)
        details: dict[str, Any] = {
            "compilations_after_warming_up": sum(run.result["compilations"] for run in runs)
        }
        if side.name.startswith("ours/"):
            step = partial(side.trainer.step, 0)
            details["top_operations"] = top_operations(step, setting.device)
        rates.append(
            row_of(name, "tokens/s", runs, lambda run: counts["tokens"] / run.seconds, details)  # noqa: B023  # called at once
        )
        flops = side.trainer.flops(counts)
        parts += _teacher_rows(name, runs, arguments.steps) if side.trainer.teacher_timer else []
        parts += _flops_rows(name, runs, flops, peak) if flops else []
    for row in rates:
        if compiled := row.details["compilations_after_warming_up"]:
            print(f"warning: {row.name} compiled {compiled} time(s) after warming up")
    return [*compare(rates), *parts]


def _teacher_rows(name: str, runs: Sequence[Run], steps: int) -> list[Row]:
    """Return the milliseconds of a step with the teacher, and with all else."""
    teacher = tuple(run.result["teacher_ms"] for run in runs)
    student = tuple(1000 * run.seconds / steps - run.result["teacher_ms"] for run in runs)
    parts = {"teacher": teacher, "student": student}
    return [Row(name=f"{name}/{part}", unit="ms", values=ms) for part, ms in parts.items()]


def _flops_rows(name: str, runs: Sequence[Run], flops: int, peak: float | None) -> list[Row]:
    """Return the operations a second and, of a card with a known peak, their share of it."""
    speeds = [flops / run.seconds for run in runs]
    rows = [Row(name=f"{name}/flops", unit="TFLOPS", values=tuple(s / 1e12 for s in speeds))]
    if peak is not None:
        shares = tuple(100 * s / peak for s in speeds)
        rows.append(Row(name=f"{name}/mfu", unit="% of peak", values=shares))
    return rows


def _counts_of_round(setting: Setting, ours: bool, steps: int) -> dict[str, int]:
    batches: Sequence[Sequence[Any]] = setting.data.packed if ours else setting.data.padded
    return add_counts([b for number in range(steps) for b in batches[number % len(batches)]])


def print_step_terms(arguments: argparse.Namespace, setting: Setting) -> None:
    """Print the sizes of a step and the text of its batches."""
    data, backend = setting.data, setting.backend
    parts: Sequence[Sequence[Sequence[Any]]] = (data.packed, data.padded)
    packed, padded = (
        add_counts([batch for step in part for batch in step])["tokens"]
        / (len(part) * arguments.micro_batches * arguments.micro_tokens)
        for part in parts
    )
    compiled = "compiled" if backend.compiled else "not compiled"
    print(f"""\
{arguments.precision}; {arguments.micro_batches} micro-batch(es) of {arguments.micro_tokens} \
tokens a step, rows of {arguments.row_tokens}
{arguments.repeat} round(s) of {arguments.steps} steps, all sides taking turns
text: {data.origin}; real tokens: {packed:.1%} of packed rows, {padded:.1%} of padded ones
ours: {backend.kernels.name}, {backend.attention} attention, {compiled}; heads at masked tokens""")
