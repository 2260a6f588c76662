"""Fused operations: ours in Triton beside plain and compiled PyTorch, forward and backward.

Sizes are those of a micro-batch of BERT-base or BERT-large. Errors are against fp64.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from launch.benchmarks.device import copy_bandwidth, matmul_flops, median_ms, peak_bytes
from launch.benchmarks.driver import Run, measure_in_turns, row_of
from launch.benchmarks.kernel_cases import CASES, Case, Size, exact_kernels
from launch.benchmarks.report import Row, compare
from launch.benchmarks.trainers import DTYPES
from pretrain.kernels.dispatch import Kernels, choose_kernels

_SIZES = {
    "base_16k": Size(tokens=16384, width=768, feed_forward=3072),
    "base_64k": Size(tokens=65536, width=768, feed_forward=3072),
    "large_16k": Size(tokens=16384, width=1024, feed_forward=4096),
    "large_64k": Size(tokens=65536, width=1024, feed_forward=4096),
    "tiny": Size(tokens=256, width=32, feed_forward=64, vocab_size=500),
}
# Fewer tokens bound the memory of an error's fp64 reference; keys and shapes stay alike.
_TOKENS_FOR_ERROR = 2048
_COPY_BYTES, _MATMUL = 2**30, 8192


@dataclass(kw_only=True)
class KernelSide:
    """One implementation of one operation at one size; a run is the median of several calls."""

    name: str
    case: Case
    size: Size
    kernels: Kernels
    dtype: torch.dtype
    device: torch.device
    calls: int

    def __post_init__(self) -> None:
        self._work = self.case.prepare(self.kernels, self.size, self.dtype, self.device)

    def run(self) -> Run:
        """Call it, and measure what a call allocates."""
        seconds = median_ms(self._work, self.calls, self.device) / 1000
        return Run(seconds=seconds, peak_bytes=peak_bytes(self._work, self.device))

    def error(self) -> float:
        """Return the largest error of outputs and gradients against fp64, over their norms."""
        small = replace(self.size, tokens=min(self.size.tokens, _TOKENS_FOR_ERROR))
        found = self.case.prepare(self.kernels, small, self.dtype, self.device)()
        exact = self.case.prepare(
            exact_kernels(), small, torch.float64, self.device, rounded_to=self.dtype
        )()
        return max(
            float((x.double() - y).norm() / y.norm()) for x, y in zip(found, exact, strict=True)
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--sizes", nargs="+", choices=list(_SIZES), help="default: all that fit")
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16" if gpu else "fp32")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--calls", type=int, default=20, help="calls in a round")


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows; of each operation and size, ours come last."""
    if min(arguments.repeat, arguments.calls) < 1:
        raise UserError("--repeat and --calls must be at least 1.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = arguments.sizes or _default_sizes(arguments.quick, device)
    if arguments.quick:
        arguments.repeat, arguments.calls = min(arguments.repeat, 2), min(arguments.calls, 5)
    dtype, kernels = DTYPES[arguments.precision], _implementations(device)
    ceilings = _ceilings(dtype, device)
    rows: list[Row] = []
    for size_name in names:
        for case in CASES:
            size = _SIZES[size_name]
            sides = [
                KernelSide(
                    name=f"{pattern.format(case.name)}/{size_name}", case=case, size=size,
                    kernels=choice, dtype=dtype, device=device, calls=arguments.calls,
                )
                for pattern, choice in kernels.items()
            ]  # fmt: skip
            floor = _floor_ms(case, size, dtype, ceilings)
            name, values = f"limit/{case.name}/{size_name}", (floor,) * arguments.repeat
            limit = Row(name=name, unit="ms", values=values)
            rows += compare([limit, *_measure(sides, arguments.repeat)])
    _print_terms(arguments, device, rows)
    return rows


def _measure(sides: list[KernelSide], rounds: int) -> list[Row]:
    found = measure_in_turns(sides, rounds)
    return [
        row_of(
            side.name,
            "ms",
            found[side.name],
            lambda run: 1000 * run.seconds,
            {"error": side.error()},
        )
        for side in sides
    ]


def _default_sizes(quick: bool, device: torch.device) -> list[str]:
    if device.type != "cuda":
        return ["tiny"]
    return ["base_16k"] if quick else [name for name in _SIZES if name != "tiny"]


def _implementations(device: torch.device) -> Mapping[str, Kernels]:
    """Return the implementations that run here, by the pattern of their rows' names."""
    eager = choose_kernels("reference", "reference", device)
    if device.type != "cuda":
        return {"peer/{}/eager": eager}
    operations: dict[str, Any] = {
        case.name: torch.compile(getattr(eager, case.name), dynamic=False) for case in CASES
    }
    return {
        "peer/{}/eager": eager,
        "peer/{}/compiled": replace(eager, **operations),
        "ours/{}": choose_kernels("triton", "triton", device),
    }


def _ceilings(dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
    """Return the bytes and operations a second of the device, measured by a copy and a product."""
    small = device.type != "cuda"
    return (
        copy_bandwidth(device, _COPY_BYTES // (64 if small else 1)),
        matmul_flops(dtype, device, _MATMUL // (16 if small else 1)),
    )


def _floor_ms(case: Case, size: Size, dtype: torch.dtype, ceilings: tuple[float, float]) -> float:
    """Return the least time of an operation: of its memory traffic or its products."""
    moved = case.elements(size) * dtype.itemsize
    return 1000 * max(moved / ceilings[0], case.flops(size) / ceilings[1])


def _print_terms(arguments: argparse.Namespace, device: torch.device, rows: list[Row]) -> None:
    """Print what is compared with what, and the error of each."""
    print(
        f"{arguments.precision} on {device.type}, forward and backward, {arguments.repeat} "
        f"round(s) of {arguments.calls} calls in turns; N tokens, D width, F feed-forward, V "
        "vocabulary"
    )
    if device.type != "cuda":
        print("compiled PyTorch and our Triton kernels are left out: this machine has no GPU")
    print("limit: bytes over a measured copy, or operations over a measured product, the larger")
    print("peak: memory that a call allocates, its results included; error: relative to fp64")
    for row in rows:
        if row.details:
            print(f"  {row.name}: error {row.details['error']:.1e}")
    print()
