"""A training step of BERT: packed with our kernels, beside transformers on padded rows.

All sides hold their models at once and take turns; a figure is real tokens a second, padding not
counted. Text is the shipped sample, or random ids where a package of preparation is missing.
"""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from launch.benchmarks.device import DeviceSide, choose_device, matmul_flops
from launch.benchmarks.driver import measure_in_turns
from launch.benchmarks.report import Row
from launch.benchmarks.step import (
    SHAPES,
    add_step_arguments,
    check_step_arguments,
    make_setting,
    print_step_terms,
    shape_of,
    step_rows,
)
from launch.benchmarks.trainers import (
    DTYPES,
    DeepSpeedTrainer,
    HfPretraining,
    PackedTrainer,
    Setting,
)

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
    makers = _makers(arguments, setting)
    sides = [DeviceSide(make, arguments.steps, setting.device) for make in makers]
    found = measure_in_turns(sides, arguments.repeat)
    suffix = f"{arguments.shape}_{arguments.row_tokens}"
    rows = [*step_rows(sides, found, suffix, arguments, setting), *_limits(setting, arguments)]
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
