"""Compile every kernel for a GPU; started by test_compiles.py without Triton's interpreter.

python compile_all.py TYPE

The public functions are called as in training. Their kernels are compiled for the types of the
arguments instead of launched, so the results are meaningless.
"""

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from pretrain.kernels.soft_cross_entropy import Head
from pretrain.kernels.triton.bias_gelu import bias_gelu
from pretrain.kernels.triton.embedding_norm import embedding_norm
from pretrain.kernels.triton.linear_cross_entropy import linear_cross_entropy
from pretrain.kernels.triton.residual_norm import residual_norm
from pretrain.kernels.triton.soft_cross_entropy import soft_cross_entropy

HOPPER = GPUTarget("cuda", 90, 32)
NAMES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.bool: "i1",
}
OPTIONS = ("num_warps", "num_stages")
compiled: set[str] = set()


def compile_instead(self: Any, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
    """Replace `JITFunction.run`: compile the kernel for its arguments, and record it."""
    options = {name: keywords.pop(name) for name in OPTIONS if name in keywords}
    given = dict(zip(self.arg_names, arguments, strict=False)) | keywords
    fixed = {p.name for p in self.params if p.is_constexpr}
    fixed |= {name for name, value in given.items() if value is None or isinstance(value, bool)}
    signature = {name: "constexpr" if name in fixed else type_of(given[name]) for name in given}
    source = ASTSource(self, signature, constexprs={name: given[name] for name in fixed})
    binary = triton.compile(source, target=HOPPER, options=options)
    assert len(binary.asm["cubin"]) > 0
    compiled.add(f"{self.fn.__module__.rpartition('.')[2]}.{self.fn.__name__}")


def type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{NAMES[value.dtype]}"
    return "fp32" if isinstance(value, float) else "i32"


def main() -> None:
    dtype = getattr(torch, sys.argv[1])
    JITFunction.run = compile_instead  # type: ignore[method-assign]

    def zeros(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, requires_grad=True)

    rows, width, vocabulary = 64, 768, 30522
    ids = torch.zeros(rows, dtype=torch.int64)
    for keys in (torch.zeros(2, 2, dtype=torch.int32), None):
        dropped: Any = {"epsilon": 1e-12, "rate": 0.1, "keys_B2": keys}
        vectors = [zeros(width) for _ in range(3)]
        inner, residual = zeros(rows, width), zeros(rows, width)
        bias, weight, shift = vectors
        residual_norm(inner, bias, residual, weight, shift, **dropped).sum().backward()
        tables = zeros(vocabulary, width), zeros(2, width), zeros(512, width)
        embedding_norm(ids, ids, ids, *tables, weight, shift, **dropped).sum().backward()
    bias_gelu(zeros(rows, 4 * width), zeros(4 * width)).sum().backward()
    for requires_grad in (True, False):
        student = Head(
            *(x.requires_grad_(requires_grad) for x in heads(dtype, rows, width, vocabulary))
        )
        linear_cross_entropy(*student, ids)
        teacher = Head(*heads(dtype, rows, 2 * width, vocabulary))
        soft_cross_entropy(
            student, teacher, ids, temperature=2.0, divergence="forward", soft_weight=1.0,
            hard_weight=1.0,
        )  # fmt: skip
    print(*sorted(compiled))


def heads(dtype: torch.dtype, rows: int, width: int, vocabulary: int) -> list[torch.Tensor]:
    return [
        torch.zeros(size, dtype=dtype)
        for size in ((rows, width), (vocabulary, width), (vocabulary,))
    ]


if __name__ == "__main__":
    main()
