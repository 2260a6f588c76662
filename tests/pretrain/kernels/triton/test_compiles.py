"""Kernels compile for a GPU on a machine without one: their interpreter accepts more than that."""

import os
import subprocess
import sys

# The kernel of two heads, with a gradient in fp16 and the vocabulary of BERT.
PROGRAM = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pretrain.kernels.triton.soft_cross_entropy import _BLOCK, _row_kernel

fixed = dict(WORDS=30522, COLUMNS=30528, STRIDE=61056, LARGEST=65504.0, IGNORED=-100,
             GRADIENT=True, BLOCK=_BLOCK)
types = {name: "*fp32" for name in _row_kernel.arg_names[:9]}
types |= {name: "fp32" for name in _row_kernel.arg_names[9:13]}
types |= {"gradients": "*fp16", "labels": "*i64", **dict.fromkeys(fixed, "constexpr")}
source = ASTSource(_row_kernel, types, constexprs=fixed)
compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
print(len(compiled.asm["cubin"]))
"""


def test_the_kernel_of_two_heads_compiles_for_a_gpu() -> None:
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0
