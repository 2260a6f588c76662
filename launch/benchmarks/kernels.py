"""Fused operations: ours in Triton beside plain and compiled PyTorch, forward and backward.

Sizes are those of a micro-batch of BERT-base or BERT-large. Errors are against fp64.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from data_prep.errors import UserError
from data_prep.progress import log
from launch.benchmarks.kernel_cases import CASES, Case, Size, exact_kernels
from launch.benchmarks.report import Row
from launch.benchmarks.timing import copy_bandwidth, matmul_flops, median_ms, peak_bytes
from pretrain.kernels.dispatch import Kernels, choose_kernels

_SIZES = {
    "base_16k": Size(tokens=16384, width=768, feed_forward=3072),
    "base_64k": Size(tokens=65536, width=768, feed_forward=3072),
    "large_16k": Size(tokens=16384, width=1024, feed_forward=4096),
    "large_64k": Size(tokens=65536, width=1024, feed_forward=4096),
    "tiny": Size(tokens=256, width=32, feed_forward=64, vocab_size=500),
}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The memory of an error's fp64 reference is bounded by fewer tokens; keys and shapes stay alike.
_TOKENS_FOR_ERROR = 2048
_COPY_BYTES, _MATMUL = 2**30, 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--sizes", nargs="+", choices=list(_SIZES), help="default: all that fit")
    parser.add_argument("--precision", choices=list(_DTYPES), default="bf16" if gpu else "fp32")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--calls", type=int, default=20, help="calls in a round")


def run(arguments: argparse.Namespace, scratch: object) -> list[Row]:
    """Measure, and return the rows."""
    if min(arguments.repeat, arguments.calls) < 1:
        raise UserError("--repeat and --calls must be at least 1.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = arguments.sizes or _default_sizes(arguments.quick, device)
    if arguments.quick:
        arguments.repeat, arguments.calls = min(arguments.repeat, 2), min(arguments.calls, 5)
    dtype, kernels = _DTYPES[arguments.precision], _kernels(device)
    ceilings = _ceilings(dtype, device)
    rows: list[Row] = []
    for size_name in names:
        for case in CASES:
            rows += _measure(case, size_name, kernels, ceilings, dtype, device, arguments)
    _print_terms(arguments, device, rows)
    return rows


def _default_sizes(quick: bool, device: torch.device) -> list[str]:
    if device.type != "cuda":
        return ["tiny"]
    return ["base_16k"] if quick else [name for name in _SIZES if name != "tiny"]


def _kernels(device: torch.device) -> Mapping[str, Kernels]:
    """Return the implementations that run here, by the name of their rows."""
    found = {"peer/{}/eager": choose_kernels("reference", "reference", device)}
    if device.type == "cuda":
        compiled = found["peer/{}/eager"]
        operations: dict[str, Any] = {
            case.name: torch.compile(getattr(compiled, case.name), dynamic=False) for case in CASES
        }
        found["peer/{}/compiled"] = replace(compiled, **operations)
        found["ours/{}"] = choose_kernels("triton", "triton", device)
    return found


def _measure(
    case: Case,
    size_name: str,
    kernels: Mapping[str, Kernels],
    ceilings: tuple[float, float],
    dtype: torch.dtype,
    device: torch.device,
    arguments: argparse.Namespace,
) -> Iterator[Row]:
    """Yield the rows of one operation at one size; ours comes last, with its ratios."""
    size = _SIZES[size_name]
    works = {
        pattern.format(case.name): case.prepare(choice, size, dtype, device)
        for pattern, choice in kernels.items()
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(arguments.repeat):
        log(f"round {number + 1} of {arguments.repeat}: {case.name}, {size_name}")
        for name, work in works.items():
            times[name].append(median_ms(work, arguments.calls, device))
    moved = case.elements(size) * dtype.itemsize
    floor = 1000 * max(moved / ceilings[0], case.flops(size) / ceilings[1])
    rows = [
        Row(name=f"limit/{case.name}/{size_name}", unit="ms", values=(floor,) * arguments.repeat)
    ]
    for (name, work), choice in zip(works.items(), kernels.values(), strict=True):
        row = Row(
            name=f"{name}/{size_name}",
            unit="ms",
            values=tuple(times[name]),
            peak_bytes=peak_bytes(work, device),
            details={"error": _error(case, choice, size, dtype, device)},
        )
        rows.append(row.against(rows) if name.startswith("ours/") else row)
    yield from rows


def _ceilings(dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
    """Return what the device can move and compute in a second: measured, not from a data sheet."""
    small = device.type != "cuda"
    return (
        copy_bandwidth(device, _COPY_BYTES // (64 if small else 1)),
        matmul_flops(dtype, device, _MATMUL // (16 if small else 1)),
    )


def _error(
    case: Case, kernels: Kernels, size: Size, dtype: torch.dtype, device: torch.device
) -> float:
    """Return the largest error of outputs and gradients against fp64, relative to their norms."""
    small = replace(size, tokens=min(size.tokens, _TOKENS_FOR_ERROR))
    found = case.prepare(kernels, small, dtype, device)()
    expected = case.prepare(exact_kernels(), small, torch.float64, device, rounded_to=dtype)()
    return max(
        float((x.double() - y).norm() / y.norm()) for x, y in zip(found, expected, strict=True)
    )


def _print_terms(arguments: argparse.Namespace, device: torch.device, rows: list[Row]) -> None:
    """Say what is compared with what, and how exact each was."""
    print(
        f"{arguments.precision} on {device.type}, there and back, {arguments.repeat} round(s) "
        f"of {arguments.calls} calls in turns; N tokens, D width, F feed-forward, V vocabulary"
    )
    if device.type != "cuda":
        print("compiled PyTorch and our Triton kernels are left out: this machine has no GPU")
    print("limit: bytes over a measured copy, or operations over a measured product, the larger")
    print("peak: memory that a call allocates, its results included; error: relative to fp64")
    for row in rows:
        if row.details:
            print(f"  {row.name}: error {row.details['error']:.1e}")
    print()
