"""Fused operations: ours in Triton beside plain and compiled PyTorch, forward and backward.

ours/NAME, peer/NAME/compiled: on a GPU; peer/NAME/eager: plain PyTorch
limit/NAME: bytes over a measured copy, or operations over a measured product, the larger
Sizes are those of a micro-batch of BERT-base or BERT-large, shapes N tokens, M masked tokens,
D width, F feed-forward, V vocabulary; inputs are drawn alike for every implementation. Peak: what a
call allocates, its results included; error: the largest of outputs and gradients against fp64,
over their norms.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from launch.benchmarks.device import (
    DTYPES,
    choose_device,
    copy_bandwidth,
    matmul_flops,
    median_ms,
    peak_bytes,
)
from launch.benchmarks.driver import Run, count_options, measure_in_turns, row_of
from launch.benchmarks.report import Row, compare
from pretrain.kernels.dispatch import Kernels, choose_kernels
from pretrain.kernels.linear_cross_entropy import CrossEntropy
from pretrain.kernels.soft_cross_entropy import Head

_DROPOUT: dict[str, Any] = {"epsilon": 1e-12, "rate": 0.1}
# Temperature and weights of DistilBERT.
_SOFT: dict[str, Any] = {"temperature": 2.0, "soft_weight": 5.0, "hard_weight": 2.0}
# Fewer tokens bound the memory of an error's fp64 reference; keys and shapes stay alike.
_TOKENS_FOR_ERROR = 2048
_COPY_BYTES, _MATMUL = 2**30, 8192
Tensors = Sequence[torch.Tensor]
Size = Mapping[str, int]  # of the axes, by their letters
Works = Mapping[str, Callable[[], Any]]


def size_of(N: int, D: int, V: int = 30522) -> Size:
    """Return the axes of N tokens and width D: P positions, T token types; M is a share of N."""
    return {
        "N": N,
        "D": D,
        "F": 4 * D,
        "V": V,
        "M": round(0.15 * N),
        "P": 512,
        "T": 2,
        "B": N // 128,
        "K": 2,
    }


_SIZES = {
    "base_16k": size_of(16384, 768),
    "base_64k": size_of(65536, 768),
    "large_16k": size_of(16384, 1024),
    "large_64k": size_of(65536, 1024),
    "tiny": size_of(256, 32, 500),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation, forward and backward.

    Attributes:
        name: of the field of `Kernels`.
        inputs: its arguments by their axes, such as "ND"; "N<V" are integers below V, "BK<V" keys
            of dropout, and what follows a bar has no gradient.
        call: runs it.
        elements: those that any implementation must read and write.
        flops: of its matrix products.
    """

    name: str
    inputs: str
    call: Callable[[Kernels, Tensors], torch.Tensor]
    elements: Callable[[Size], int]
    flops: Callable[[Size], int] = lambda size: 0

    def prepare(
        self, kernels: Kernels, size: Size, dtype: torch.dtype, device: torch.device,
        rounded_to: torch.dtype | None = None,
    ) -> Callable[[], list[torch.Tensor]]:  # fmt: skip
        """Return the forward and backward pass, which returns the output and all gradients.

        Args:
            kernels: the implementation.
            size: of the axes.
            dtype: that the operation computes in.
            device: of the tensors.
            rounded_to: a type that the inputs are rounded to before, for a reference in fp64.
        """
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            drawn = torch.randn(shape, generator=generator, device=device)
            # Tables and weights are small, as in a model; so are the logits.
            scale = 0.02 if shape and shape[0] in (size["V"], size["P"], size["T"]) else 1.0
            return (scale * drawn).to(rounded_to or dtype).to(dtype)

        def draw(axes: str) -> torch.Tensor:
            names, _, below = axes.partition("<")
            shape = [size[name] for name in names]
            if not below:
                return normal(*shape)
            drawn = torch.randint(size[below], shape, generator=generator, device=device)
            return drawn.int() if names == "BK" else drawn

        trained, _, fixed = self.inputs.partition("|")
        leaves = [draw(axes).requires_grad_() for axes in trained.split()]
        inputs = [*leaves, *map(draw, fixed.split())]
        gradient = normal(*self.call(kernels, inputs).shape)

        def work() -> list[torch.Tensor]:
            output = self.call(kernels, inputs)
            return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]

        return work


def _soft_loss(kernels: Kernels, x: Tensors) -> torch.Tensor:
    return kernels.soft_cross_entropy(Head(*x[:3]), Head(*x[3:6]), x[6], **_SOFT).total


CASES = (
    Case(
        name="bias_gelu",
        inputs="NF F",
        call=lambda kernels, x: kernels.bias_gelu(*x),
        elements=lambda s: 5 * s["N"] * s["F"],  # x and y; x, the gradients of y and x
    ),
    Case(
        name="residual_norm",
        inputs="ND D ND D D | BK<V",  # x, bias, residual; weight and bias of the norm; dropout keys
        call=lambda kernels, x: kernels.residual_norm(*x[:5], keys_B2=x[5], **_DROPOUT),
        # Two inputs and the output; one of these, its gradient and those of both inputs.
        elements=lambda s: 7 * s["N"] * s["D"],
    ),
    Case(
        name="embedding_norm",
        inputs="VD TD PD D D | N<V N<T N<P BK<V",
        call=lambda kernels, x: kernels.embedding_norm(*x[5:8], *x[:5], keys_B2=x[8], **_DROPOUT),
        # Rows of the token table and the output; rows, its gradient; the table's gradient.
        elements=lambda s: (4 * s["N"] + s["V"]) * s["D"],
    ),
    Case(
        name="linear_cross_entropy",
        inputs="MD VD V | M<V",
        call=lambda kernels, x: kernels.linear_cross_entropy(*x).loss,
        elements=lambda s: 2 * (s["V"] + s["M"]) * s["D"],  # the inputs and their gradients
        flops=lambda s: 6 * s["M"] * s["D"] * s["V"],
    ),
    Case(
        name="soft_cross_entropy",
        inputs="MD VD V | MD VD V M<V",
        call=_soft_loss,
        elements=lambda s: 3 * (s["V"] + s["M"]) * s["D"],  # both heads, and one's gradients
        flops=lambda s: 8 * s["M"] * s["D"] * s["V"],
    ),
)


def exact_kernels() -> Kernels:
    """Return operations that compute in the precision of their inputs, for references in fp64."""
    plain = choose_kernels("reference", "reference", torch.device("cpu"))
    return replace(plain, linear_cross_entropy=_exact_cross_entropy)


def _exact_cross_entropy(
    hidden_MD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor, labels_M: torch.Tensor
) -> CrossEntropy:
    # The reference computes in fp32, whatever its inputs are.
    logits_MV = F.linear(hidden_MD, weight_VD, bias_V)
    loss = F.cross_entropy(logits_MV, labels_M, reduction="sum")
    return CrossEntropy(loss, (logits_MV.argmax(-1) == labels_M).sum())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--sizes", nargs="+", choices=list(_SIZES), help="default: all that fit")
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16" if gpu else "fp32")
    count_options(parser, {"--repeat": (3, "rounds"), "--calls": (20, "calls in a round")})


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows; of each operation and size, ours come last."""
    device, dtype = choose_device(), DTYPES[arguments.precision]
    names = arguments.sizes or _default_sizes(arguments.quick, device)
    if arguments.quick:
        arguments.repeat, arguments.calls = min(arguments.repeat, 2), min(arguments.calls, 5)
    smaller = 1 if device.type == "cuda" else 16
    ceilings = (
        copy_bandwidth(device, _COPY_BYTES // (4 * smaller if smaller > 1 else 1)),
        matmul_flops(dtype, device, _MATMUL // smaller),
    )
    implementations, rows = _implementations(device), list[Row]()
    for size_name in names:
        size = _SIZES[size_name]
        for case in CASES:
            works, errors = {}, {}
            for pattern, kernels in implementations.items():
                name = f"{pattern.format(case.name)}/{size_name}"
                works[name] = case.prepare(kernels, size, dtype, device)
                errors[name] = _error(case, kernels, size, dtype, device)
            limit = Row(
                name=f"limit/{case.name}/{size_name}",
                unit="ms",
                values=(_floor_ms(case, size, dtype, ceilings),) * arguments.repeat,
            )
            rows += compare([limit, *_measure(works, errors, arguments, device)])
    for row in rows:
        if row.details:
            print(f"{row.name}: error {row.details['error']:.1e}")
    return rows


def _measure(
    works: Works, errors: Mapping[str, float], arguments: argparse.Namespace, device: torch.device
) -> list[Row]:
    def run(work: Callable[[], Any]) -> Run:
        seconds = median_ms(work, arguments.calls, device) / 1000
        return Run(seconds=seconds, peak_bytes=peak_bytes(work, device))

    sides = {name: partial(run, work) for name, work in works.items()}
    return [
        row_of(name, "ms", runs, lambda run: 1000 * run.seconds, error=errors[name])
        for name, runs in measure_in_turns(sides, arguments.repeat).items()
    ]


def _error(
    case: Case, kernels: Kernels, size: Size, dtype: torch.dtype, device: torch.device
) -> float:
    """Return the largest error of outputs and gradients against fp64, over their norms."""
    small = size_of(min(size["N"], _TOKENS_FOR_ERROR), size["D"], size["V"])
    found = case.prepare(kernels, small, dtype, device)()
    exact = case.prepare(exact_kernels(), small, torch.float64, device, rounded_to=dtype)()
    pairs = zip(found, exact, strict=True)
    return max(float((x.double() - y).norm() / y.norm()) for x, y in pairs)


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


def _floor_ms(case: Case, size: Size, dtype: torch.dtype, ceilings: tuple[float, float]) -> float:
    """Return the least time of an operation: of its memory traffic or its products."""
    moved = case.elements(size) * dtype.itemsize
    return 1000 * max(moved / ceilings[0], case.flops(size) / ceilings[1])
