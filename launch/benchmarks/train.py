"""A training step of BERT: packed with our kernels, beside transformers on padded rows.

All sides hold their models at once and take turns; a figure is real tokens a second, padding not
counted. Text is the shipped sample, or random ids where preparation lacks a package.
"""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from launch.benchmarks.report import Row
from launch.benchmarks.timing import Side, Turns, matmul_flops, take_turns, top_operations
from launch.benchmarks.train_data import Data, make_data
from launch.benchmarks.train_sides import (
    DTYPES,
    HuggingFace,
    Ours,
    Setting,
    UnderDeepSpeed,
    add_counts,
)
from pretrain.kernels.dispatch import choose_kernels, resolve_block
from pretrain.model import BertShape
from pretrain.model.attention import choose_attention
from pretrain.model.backend import Backend
from pretrain.model.compilation import CompilationCounter
from pretrain.monitoring.flops import training_flops
from pretrain.monitoring.gpu_peaks import device_peak

SHAPES = {"tiny": (2, 128, 2), "base": (12, 768, 12), "large": (24, 1024, 16)}
WARM_UP = 3
_MATMUL = 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--shape", choices=list(SHAPES), default="base" if gpu else "tiny")
    add_step_arguments(parser, 32768 if gpu else 1024)
    parser.add_argument("--deepspeed", action="store_true", help="ours under DeepSpeed as well")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")


def add_step_arguments(parser: argparse.ArgumentParser, micro_tokens: int) -> None:
    """Declare the options of a step and its rounds, whatever is trained."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--row-tokens", type=int, default=128, help="tokens of a row")
    parser.add_argument(
        "--micro-tokens", type=int, default=micro_tokens, help="places of a micro-batch"
    )
    parser.add_argument("--micro-batches", type=int, default=1, help="micro-batches of a step")
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16" if gpu else "fp32")
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    parser.add_argument(
        "--block", choices=["auto", "reference", "compiled", "triton"], default="auto",
        help="our fused operations",
    )  # fmt: skip


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    check(arguments)
    if arguments.deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise UserError("--deepspeed needs the package deepspeed: install it, or leave this out.")
    device = choose_device()
    setting = make_setting(shape_of(arguments.shape), arguments, device, scratch)
    sides = take_turns(
        _makers(arguments, setting, device),
        rounds=arguments.repeat,
        steps=arguments.steps,
        warm_up=WARM_UP,
        device=device,
        count_compilations=CompilationCounter().since_last,
    )
    rows = compare(sides, setting, arguments, device_peak(device, arguments.precision))
    _print_terms(arguments, setting, sides, rows)
    return rows


def choose_device() -> torch.device:
    """Return the GPU where there is one, set as a run sets it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        # What a run in fp32 does on such a card; the sides in 16 bits are not concerned.
        torch.set_float32_matmul_precision("high")
    return device


def compare(
    sides: Sequence[tuple[Side, Turns]],
    setting: Setting,
    arguments: argparse.Namespace,
    peak: float | None,
) -> list[Row]:
    """Return the rows of all sides, ours last with their ratios, then operations a second."""
    suffix = f"{arguments.shape}_{arguments.row_tokens}"
    peers: list[Row] = []
    ours: list[Row] = []
    shares: list[Row] = []
    for side, turns in sides:
        tokens, flops = _work(side, setting.data, setting.shape, arguments.steps)
        details: dict[str, Any] = {"compilations_after_warming_up": turns.compilations}
        if side.name.startswith("ours/"):
            details["top_operations"] = top_operations(lambda: side.step(0), setting.device)  # noqa: B023  # called at once
        rates = tuple(tokens / seconds for seconds in turns.seconds)
        row = Row(
            name=f"{side.name}/{suffix}",
            unit="tokens/s",
            values=rates,
            peak_bytes=turns.peak_bytes,
            details=details,
        )
        (ours if side.name.startswith("ours/") else peers).append(row)
        shares += utilisation(row.name, flops, turns.seconds, peak)
    return [*peers, *(row.against(peers) for row in ours), *shares, *_limits(setting, arguments)]


def utilisation(name: str, flops: float, seconds: Sequence[float], peak: float | None) -> list[Row]:
    """Return the operations a second of each round and, of a card that is known, their share."""
    speeds = [flops / s for s in seconds]
    rows = [Row(name=f"{name}/flops", unit="TFLOPS", values=tuple(s / 1e12 for s in speeds))]
    if peak is not None:
        shares = tuple(100 * s / peak for s in speeds)
        rows.append(Row(name=f"{name}/mfu", unit="% of peak", values=shares))
    return rows


def _limits(setting: Setting, arguments: argparse.Namespace) -> list[Row]:
    """Return what a large matrix product reaches here: no step is faster than its products."""
    if setting.device.type != "cuda":
        return []
    dtype = DTYPES[arguments.precision]
    found = [matmul_flops(dtype, setting.device, _MATMUL) for _ in range(arguments.repeat)]
    values = tuple(flops / 1e12 for flops in found)
    return [Row(name=f"limit/matmul_{_MATMUL}", unit="TFLOPS", values=values)]


def _work(side: Side, data: Data, shape: BertShape, steps: int) -> tuple[int, int]:
    """Return the real tokens of a round, and the operations that they need."""
    kinds: dict[bool, Sequence[Sequence[Any]]] = {True: data.packed, False: data.padded}
    own = kinds[side.name.startswith("ours/")]
    counts = add_counts([batch for number in range(steps) for batch in own[number % len(own)]])
    return counts["tokens"], training_flops(shape, counts)


def shape_of(name: str) -> BertShape:
    """Return one of the shapes that are known by name."""
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
    """Return what all sides share, with the batches that they are given."""
    block = resolve_block(arguments.block, device)
    data = make_data(
        steps=min(arguments.steps, 8),
        micro_batches=arguments.micro_batches,
        rows=arguments.micro_tokens // arguments.row_tokens,
        row_tokens=arguments.row_tokens,
        vocab_size=shape.vocab_size,
        scratch=scratch,
        pin=device.type == "cuda",
    )
    return Setting(
        shape=shape,
        precision=arguments.precision,
        device=device,
        backend=Backend(
            kernels=choose_kernels(block, "auto", device),
            attention=choose_attention(
                "auto", device, arguments.precision, shape.width // shape.heads
            ),
            compiled=block == "compiled",
        ),
        data=data,
    )


def _makers(
    arguments: argparse.Namespace, setting: Setting, device: torch.device
) -> list[Callable[[], Side]]:
    makers: list[Callable[[], Side]] = [
        partial(Ours, "ours/packed", setting),
        partial(HuggingFace, "peer/hf_sdpa", setting, compiled=False),
    ]
    if device.type == "cuda":
        makers.append(partial(HuggingFace, "peer/hf_sdpa_compiled", setting, compiled=True))
    if arguments.deepspeed:
        recipe = _recipe(arguments)
        makers.append(partial(UnderDeepSpeed, "ours/packed_deepspeed", setting, recipe))
    return makers


def _recipe(arguments: argparse.Namespace) -> Any:
    """Return the recipe of a run like this; its paths are not read."""
    from pretrain.config.run import TeacherRecipe

    rows = arguments.micro_tokens // arguments.row_tokens
    return TeacherRecipe.model_validate(
        {
            "run": {"path": "unused"},
            "corpus": {"path": "unused"},
            "tokenizer": {"path": "unused"},
            "train": {
                "steps": 1_000_000,
                "batch_rows": rows * arguments.micro_batches,
                "micro_rows": rows,
                "row_tokens": arguments.row_tokens,
                "precision": arguments.precision,
            },
            "deepspeed": {"config": f"ds_configs/zero1_{arguments.precision}.json"},
        }
    )


def check(arguments: argparse.Namespace) -> None:
    """Shorten what is to be quick, and refuse options that contradict each other."""
    if arguments.quick:
        arguments.steps, arguments.repeat = min(arguments.steps, 5), min(arguments.repeat, 2)
    if min(arguments.repeat, arguments.steps, arguments.micro_batches) < 1:
        raise UserError("--repeat, --steps and --micro-batches must be at least 1.")
    if arguments.micro_tokens % arguments.row_tokens or arguments.row_tokens > 512:
        raise UserError(
            f"--micro-tokens {arguments.micro_tokens} must be a multiple of --row-tokens "
            f"{arguments.row_tokens}, and that at most 512."
        )


def _print_terms(
    arguments: argparse.Namespace,
    setting: Setting,
    sides: Sequence[tuple[Side, Turns]],
    rows: Sequence[Row],
) -> None:
    """Say what is compared with what, and how operations are counted."""
    data = setting.data
    packed, padded = (
        add_counts([batch for step in part for batch in step])["tokens"]
        / (len(part) * arguments.micro_batches * arguments.micro_tokens)
        for part in (data.packed, data.padded)
    )
    print(
        f"BERT-{arguments.shape}, vocabulary {setting.shape.vocab_size:,}, {arguments.precision}; "
        f"{arguments.micro_batches} micro-batch(es) of {arguments.micro_tokens} places a step, "
        f"rows of {arguments.row_tokens} tokens"
    )
    print(f"{arguments.repeat} round(s) of {arguments.steps} steps, all sides taking turns")
    print(f"text: {data.origin}; real tokens: packed {packed:.1%} of places, padded {padded:.1%}")
    print(
        f"ours: {setting.backend.kernels.name}, {setting.backend.attention} attention, "
        f"{'compiled' if setting.backend.compiled else 'not compiled'}; heads at masked places"
    )
    print("peer: BertForPreTraining, a sample a row, autocast, no dropout inside attention")
    if setting.device.type != "cuda":
        print("the compiled peer is left out: this machine has no GPU")
    print(
        "TFLOPS: 6 (12 D^2 L tokens + 2 D L sum of squared lengths + (D^2 + D V) masked tokens), "
        "F = 4 D; mfu: their share of the card's dense peak in its data sheet"
    )
    for side, turns in sides:
        if turns.compilations:
            print(f"warning: {side.name} compiled {turns.compilations} time(s) after warming up")
    if arguments.profile:
        _print_profile(rows)
    print()


def _print_profile(rows: Sequence[Row]) -> None:
    for row in rows:
        for operation in row.details.get("top_operations", []):
            print(
                f"{row.name}: {operation['share']:6.1%} {operation['ms']:9.3f} ms "
                f"{operation['calls']:5} x {operation['name']}"
            )
